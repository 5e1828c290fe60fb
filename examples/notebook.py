"""Without `await`, for notebooks and scripts: each `# %%` is a cell.

python examples/notebook.py
"""

# %% Start a farm; `SyncFarm.connect("redis://...")` uses one that runs already.
from fuzzfarm import CallOperation, SubprocessJob, SyncFarm

farm = SyncFarm.embedded(workers=2).__enter__()

# %% Submit, and look at the state as often as you like.
batch = farm.submit(CallOperation.many("math:factorial", range(100)), key="factorials")
print(batch.status().state, batch.status().completed)

# %% Wait for all results by key.
results = batch.wait().results
print(results["20"])

# %% Or take outcomes as they come.
for outcome in farm.submit([SubprocessJob(key="date", command=["date", "-u"])]).stream():
    print(outcome.key, outcome.value.stdout.strip())

# %% Stop server and workers.
farm.__exit__(None, None, None)
