"""The control loop: compare what people want with what the engine shows, and make one step.

`sweep` finds what is due, `claim` takes the lease, `reconcile` observes and acts, `decide` (pure) says
what to do, `place` hands out slots and GPUs. Correct on a timer alone and on doorbells alone.
"""
