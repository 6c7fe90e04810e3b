"""/graphql: how requests get in and answers get out. What there is to ask for is `console.schema`."""
