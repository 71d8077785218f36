"""Which two adjacent months of which entities a step trains on (sections 3.3.1 and 4.1.1)."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.store import MinuteStore
from infobehavior.data.windows import Windows
from infobehavior.errors import InputError
from infobehavior.pretraining.borders import Borders, BordersOfRows, Enough, OneBorder, end_of_its_day, its_own_minute
from infobehavior.pretraining.processes import ALONE, Processes

MOST_HALVINGS = 3
"""An eighth of a window is the shortest that is seen of it, where several lengths are."""


def seeded(*numbers: int) -> np.random.Generator:
    """A generator that is a pure function of some numbers, such as (seed, step)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(numbers)))


@dataclass
class PairSampler:
    """Draws pairs of adjacent windows; what a step gets depends on the seed and the step alone.

    Where several processes train, each holds the minutes of a run of the entities. All of them draw the same whole
    step, and each cuts the windows of the entities that it holds.

    A border is a minute between two windows: `X_1` ends at it and `X_2` begins with it. Only borders with at
    least `min_minutes` minutes with events on both sides count.

    Attributes:
        store: the process's minutes; nothing in it may be later than training is allowed to see.
        window_minutes: length of each of the two windows.
        pairs: "latest": one border an entity, a window's length before `until`; "anywhere": any minute with events;
            "any_day": the end of any local day with events, as windows that are embedded every day have it.
        until: UTC epoch minute at which the latest window ends.
        min_minutes: see above.
        batch_size: entities of a step.
        seed: seed of the order of entities, of the borders and of the lengths.
        time_zone: IANA name; decides when days end.
        lengths: "whole": all minutes of both windows; "several": in each step what is nearest to the borders, a whole
            window on either side, a half, a quarter or an eighth; it stands where a window ends. It is the same for
            all pairs of a step that have enough minutes there, since their length would tell others apart.
        processes: those that train.
    """

    store: MinuteStore
    window_minutes: int
    pairs: Literal["latest", "anywhere", "any_day"]
    until: int
    min_minutes: int
    batch_size: int
    seed: int
    time_zone: str
    lengths: Literal["whole", "several"] = "whole"
    processes: Processes = ALONE
    _borders: Borders = field(init=False, repr=False)
    _entities: NDArray[np.int64] = field(init=False, repr=False)
    _borders_before: NDArray[np.int64] = field(init=False, repr=False)
    _entities_before: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find the borders.

        Raises:
            InputError: fewer than two entities have one, so that there are no negatives.
        """
        self._borders = self._find_borders()
        self._entities = np.flatnonzero(self._borders.num)
        num_borders, self._entities_before = self.processes.concatenate(self._borders.num[self._entities])
        self._borders_before = np.concatenate([[0], np.cumsum(num_borders)])
        if self.num_entities < 2:
            num_entities = self.processes.total(len(self.store.entities))
            raise InputError(
                f"{self.num_entities} of {num_entities} entities have two adjacent windows of "
                f"{self.window_minutes // 1440} days with at least {self.min_minutes} minutes of events each; "
                "pre-training needs two or more: use a shorter --window-days, or --pairs anywhere"
            )

    @property
    def num_entities(self) -> int:
        """Entities that have a pair, in all processes."""
        return len(self._borders_before) - 1

    @property
    def num_pairs(self) -> int:
        """Pairs of windows of a step, in all processes."""
        return min(self.batch_size, self.num_entities)

    def is_followed(self, minutes: int, known_until: NDArray[np.int64]) -> bool:
        """Whether of any entity so many minutes after a whole second window are known.

        Args:
            minutes: after a window's end.
            known_until: of each entity, the UTC epoch minute from which on nothing is known of it.
        """
        end = self._borders.first[self._entities] + self.window_minutes + minutes
        followed = (end <= known_until[self._entities]).any()
        return self.processes.total(int(followed)) > 0

    def windows(self, step: int) -> Windows:
        """First windows, then second windows, of the entities of a step; each entity occurs once a pass over all."""
        drawn, own = self._drawn(step), self._own_pairs(step)
        first_border = self._borders_before[drawn]
        number = seeded(self.seed, 1, step).integers(first_border, self._borders_before[drawn + 1]) - first_border
        entity = self._entities[drawn[own] - self._entities_before]
        border = self._borders.at(entity, number[own])
        if self.lengths == "whole":
            return self._first(entity, border).followed_by(self._second(entity, border))
        return self._shortened(entity, border, int(seeded(self.seed, 4, step).integers(0, MOST_HALVINGS + 1)))

    def places(self, step: int) -> NDArray[np.int64]:
        """Which windows of the whole step the process's own windows are."""
        own = self._own_pairs(step)
        return np.concatenate([own, own + self.num_pairs])

    def _drawn(self, step: int) -> NDArray[np.int64]:
        """The entities of a step, counted among all that have a pair."""
        return np.array([self._entity_at(step * self.num_pairs + i) for i in range(self.num_pairs)])

    def _own_pairs(self, step: int) -> NDArray[np.int64]:
        """Which of the step's pairs are of entities that this process holds."""
        place = self._drawn(step) - self._entities_before
        return np.flatnonzero((place >= 0) & (place < len(self._entities)))

    def _shortened(self, entity: NDArray[np.int64], border: NDArray[np.int64], halvings: int) -> Windows:
        """The windows before and after borders, of which less is seen where what is left has enough minutes."""
        length = np.full(len(entity), self.window_minutes >> halvings)
        both = self._nearest(entity, border, length)
        has_enough = (both.num_minutes >= self.min_minutes).reshape(2, -1).all(0)
        return self._nearest(entity, border, np.where(has_enough, length, self.window_minutes))

    def _nearest(self, entity: NDArray[np.int64], border: NDArray[np.int64], length: NDArray[np.int64]) -> Windows:
        """First and second windows that hold nothing but as many minutes before and after the borders."""
        first, second = self._first(entity, border), self._first(entity, border + length)
        return first.followed_by(second).last(np.tile(length, 2), self.store)

    def _entity_at(self, position: int) -> int:
        """The entity at a position of an endless row of shuffled passes.

        Where a batch reaches into the next pass it must not hold an entity twice, so passes are cut to whole batches.
        """
        usable = self.num_entities - self.num_entities % self.num_pairs
        shuffled = self._pass(position // usable)
        return int(shuffled[position % usable])

    def _pass(self, number: int) -> NDArray[np.int64]:
        if getattr(self, "_pass_number", None) != number:
            self._pass_number = number
            self._shuffled = seeded(self.seed, 0, number).permutation(self.num_entities)
        return self._shuffled

    def _find_borders(self) -> Borders:
        enough = Enough(self.window_minutes, self.min_minutes)
        if self.pairs == "latest":
            return OneBorder.find(self.store, self.until - self.window_minutes, enough)
        is_anywhere = self.pairs == "anywhere"
        border_of = its_own_minute if is_anywhere else end_of_its_day(self.store, self.time_zone)
        return BordersOfRows.find(self.store, border_of, enough)

    def _first(self, entity: NDArray[np.int64], border: NDArray[np.int64]) -> Windows:
        return Windows.cut(self.store, entity, border, self.window_minutes)

    def _second(self, entity: NDArray[np.int64], border: NDArray[np.int64]) -> Windows:
        return Windows.cut(self.store, entity, border + self.window_minutes, self.window_minutes)
