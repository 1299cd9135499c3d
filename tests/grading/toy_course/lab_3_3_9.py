# %% [markdown]
# # Toy lab

# %% tags=["parameters"]
profile, scale, out = "auto", "full", "results"

# %%
# ruff: noqa
import math
import toy_lab
from labs_helpers.lab import Lab

toy_lab.register()
lab = Lab("3.3.9", profile=profile, scale=scale, out=out)


# %% labs={"exercise": "double"}
def double(x):
    """Twice a number; TypeError for anything else."""
    ### BEGIN SOLUTION
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        raise TypeError("not a number")
    return math.ldexp(x, 1)
    ### END SOLUTION


lab.check("double", double)

# %%
print("twice", double(21))

# %%
with toy_lab.serve() as url:
    lab.record(toy_lab.measure(url, 1200))


# %% labs={"exercise": "total"}
def total(numbers):
    """The sum."""
    ### BEGIN SOLUTION
    return sum(numbers)
    ### END SOLUTION


lab.check("total", total)

# %% [markdown] labs={"question": "why"}
# **Why?** *Your answer:*

# %%
lab.finish()
