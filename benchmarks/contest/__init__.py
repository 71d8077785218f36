"""The contest: representations, peers' and ours, and hand-made features, by the same questions on equal terms.

`python -m contest --help` says how to run it; `docs/results.md` is the page that it writes.
"""

from infobehavior.threads import spin_briefly

spin_briefly()  # here, since it comes before all that imports PyTorch
