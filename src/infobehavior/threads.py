"""How the threads that share a product wait for each other."""

import os

SPINS = 1_000


def spin_briefly() -> None:
    """Let waiting threads spin for some microseconds, then sleep; where a user's environment says otherwise, it stands.

    By default they spin on, which makes training many times slower on a machine that has other work to do; where they
    sleep at once, waking them takes long beside many small products. To be called before PyTorch is imported, whose
    OpenMP reads it once. Other OpenMP libraries than GNU's only know the first of the two.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPINS)}
