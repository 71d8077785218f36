"""The learning rate of section 4.1.2: a linear rise to the peak, then a linear fall to zero."""


def learning_rate_at(step: int, num_steps: int, peak: float, warmup_proportion: float) -> float:
    """Learning rate of a step, counted from 0.

    Example:
        >>> [learning_rate_at(step, num_steps=10, peak=1.0, warmup_proportion=0.2) for step in (0, 1, 2, 9)]
        [0.5, 1.0, 1.0, 0.125]
    """
    num_warmup = round(num_steps * warmup_proportion)
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    return peak * (num_steps - step) / (num_steps - num_warmup)
