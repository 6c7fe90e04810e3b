"""The services of one machine: embedded PostgreSQL and Valkey, and the parent that keeps all of them.

Plain Python: no Django models, so that everything here works before there is a database. `paths` says where
things lie (pure functions), `process` starts and recognises processes, `account` says under which account
the database runs, `postgres` and `valkey` are the two embedded servers, `catalogue` lists what is started,
`supervise` keeps it alive, `preflight` refuses a start that cannot work, with one line that says why.
"""
