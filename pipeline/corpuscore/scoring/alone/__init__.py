"""A partition that may end the process in which it is scored: tried in processes of its own, which may die.

    score it whole -> it ends well: innocent, that is its receipt
                   -> it dies: score its documents group by group, the group that died in smaller groups, and the one
                      that is left once more by itself; then score all the others, under the same work id

A process dies of a signal, of its exit, of too much memory, or of silence. Documents that ended theirs twice, by
themselves, are rejects (`killed`, `hung`), and so are those with the same text. Nobody else dies with them: a worker
only waits for these processes, which end with it.

The cost is bounded: with P such documents, MOST_FOUND at the most, there are 4 + 4 P processes, each of which loads the
model once (but for one that only reads), and some more where processes die of something else, PROCESSES in all. What
goes through the model is the partition three times, and a 31st of it for each of the P. One that gives no answer is
waited for five times: once as long as a partition may stall, and then ten times as long as the slowest group took.
"""

from corpuscore.scoring.alone.process import Limits
from corpuscore.scoring.alone.search import MOST_FOUND, PROCESSES, Alone, score_alone

__all__ = ["MOST_FOUND", "PROCESSES", "Alone", "Limits", "score_alone"]
