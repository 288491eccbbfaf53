"""One request of a stream: sent when it is its turn, sent again, tried in halves, or given up.

| what comes | what is done |
|---|---|
| scores | checked: shape, range, version; a row of NaN is asked for once more, by itself |
| UNAVAILABLE and its like | sent again after a while; several in a row open the circuit (breaker.py) |
| RESOURCE_EXHAUSTED | sent again when the server says so, with fewer under way (pace.py) |
| DEADLINE_EXCEEDED | sent again, then in halves; a text that is too slow by itself is a reject, if another is not |
| INVALID_ARGUMENT | never sent again as it is: in halves, down to the text, which is a reject |
| INTERNAL and its like | sent again a few times, then in halves |
| UNAUTHENTICATED, NOT_FOUND, ... | one error for all |
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from corpuscore.errors import MessageError, ModelError, ServiceUnavailable
from corpuscore.inference.tensors import Answer, request_of, scores_of
from corpuscore.patience import ANSWER
from corpuscore.records import FAILED, HUNG, NOT_FINITE, Skipped
from corpuscore.scoring.faults import PLAIN_TEXT, Fault, Suspicion, words_of
from corpuscore.scoring.remote.channel import Link
from corpuscore.scoring.remote.offer import Offer, changed
from corpuscore.scoring.remote.pace import wait_before
from corpuscore.scoring.remote.sizes import Sizes
from corpuscore.scoring.remote.statuses import Meaning, Trouble
from corpuscore.scoring.scorer import Meter
from corpuscore.scoring.texts import Text

#: Times that a request is sent that is too slow, or that breaks something, before it is tried in halves.
SLOW_TRIES, BROKEN_TRIES = 2, 3
#: What rounding may add to a probability.
_ROUNDING = 1e-5


class Stopped(Exception):
    """Nobody wants the answer any more."""


class _NoScores(Exception):
    """PLAIN_TEXT has none either."""


class Served:
    """What all streams of a scorer share.

    Args:
        link: The connection.
        offer: What was planned.
        sizes: Of requests.
    """

    def __init__(self, link: Link, offer: Offer, sizes: Sizes) -> None:
        self.link, self.offer, self.sizes = link, offer, sizes
        self._version = offer.info.fingerprint if offer.states_fingerprint else None
        self._learning = threading.Lock()

    def check_version(self, version: str) -> None:
        """See that an answer is of the model that was planned.

        Raises:
            ModelError: It is of another one.
        """
        with self._learning:
            if self._version is None:  # of a service without fingerprints: the first answer tells
                known = self.offer.card.versions
                if version and known and version not in known:
                    raise changed(self.offer, f"an answer is of version {version[:80]!r}")
                self._version = version
        if version != self._version:
            raise changed(self.offer, f"an answer is of version {version[:80]!r}")


class Requests:
    """The requests of one stream, from whatever thread.

    Args:
        served: Whose.
        meter: Of the stream.
    """

    def __init__(self, served: Served, meter: Meter) -> None:
        self._served = served
        self._link, self._sizes, self._offer = served.link, served.sizes, served.offer
        self._meter = meter
        self._stopped = threading.Event()
        self._calls: set[Any] = set()
        self._changing = threading.Lock()
        self._seconds = ANSWER.seconds()
        self._suspicion = Suspicion(
            self._offer.info.model,
            "The service",
            self._probe,
            next_step="send it a text by hand, and look into its log",
        )

    def stop(self) -> None:
        """End all that is under way."""
        self._stopped.set()
        with self._changing:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def pause(self, seconds: float) -> None:
        """Wait; it shows in the meter, so that whoever watches sees that this is alive.

        Raises:
            Stopped: Nobody waits any more.
        """
        began = time.perf_counter()
        stopped = self._stopped.wait(seconds) if seconds else self._stopped.is_set()
        with self._changing:
            self._meter.busy["wait"] = self._meter.busy.get("wait", 0.0) + time.perf_counter() - began
        if stopped:
            raise Stopped

    def score(self, records: Sequence[Text], texts: Sequence[str]) -> None:
        """Give each record its row, or why it has none.

        Raises:
            ModelError: The service fails for all texts, or is not what was planned.
            ServiceUnavailable: It is gone for too long.
            Stopped: Nobody waits any more.
        """
        waiting = [list(range(len(texts)))]
        while waiting:
            members = waiting.pop()
            members = [at for at in members if not self._unfit(records[at], texts[at])]
            if not members:
                continue
            sent = [texts[at] for at in members]
            answer = self._answer(sent)
            if isinstance(answer, Answer):
                waiting += self._note(answer, [records[at] for at in members], sent, members)
            elif len(members) == 1:
                self._reject(records[members[0]], answer)
            else:
                middle = len(members) // 2
                waiting += [members[middle:], members[:middle]]

    def _unfit(self, record: Text, text: str) -> bool:
        """Whether a text cannot be sent at all; then its record says why."""
        try:
            size, most = len(text.encode()), self._sizes.document_bytes
        except UnicodeEncodeError as error:
            record.failed = Skipped(FAILED, words_of(error))
            return True
        if most and size > most:
            record.failed = Skipped(FAILED, f"{size} bytes, and the service takes {most} in one request")
        return record.failed is not None

    def _note(self, answer: Answer, records: list[Text], texts: list[str], members: list[int]) -> list[list[int]]:
        """Write rows down; those that are to be asked for once more, each by itself."""
        again: list[list[int]] = []
        rows_DL = self._checked(answer.probabilities_DL, answer.failed)
        for at, record in enumerate(records):
            if answer.tokens_D is not None:
                record.tokens = int(answer.tokens_D[at])
            record.truncated = answer.truncated_D is not None and bool(answer.truncated_D[at])
            if at in answer.failed:
                record.failed = answer.failed[at]
            elif np.isfinite(rows_DL[at]).all():
                record.row_L = rows_DL[at]
                self._suspicion.passed()
            elif record.row_L is None:  # once more, by itself; the row remembers that
                record.row_L = rows_DL[at]
                again.append([members[at]])
            else:
                self._reject(record, Trouble("", Meaning.REFUSED, ""))
        used = int(answer.tokens_D.sum()) if answer.tokens_D is not None else 0
        if used:
            self._sizes.learn(texts, used)
        with self._changing:
            self._meter.tokens += used or sum(map(self._sizes.estimate, texts))
        return again

    def _checked(self, rows_DL: npt.NDArray[np.float32], failed: dict[int, Skipped]) -> npt.NDArray[np.float32]:
        """The rows, where all that are numbers are probabilities.

        Raises:
            ModelError: One is not.
        """
        low, high = np.nanmin(rows_DL, initial=0.0), np.nanmax(rows_DL, initial=1.0)
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            worst = low if low < -_ROUNDING else high
            raise ModelError(
                f"The service at {self._offer.info.model} answers with {worst:.6g} as a score",
                rule="Scores are probabilities, between 0 and 1",
                next_step="name the output that has probabilities (...?output=NAME), or let the service apply softmax "
                "or sigmoid to its logits",
            )
        return np.clip(rows_DL, 0.0, 1.0)

    def _reject(self, record: Text, trouble: Trouble) -> None:
        """Say why a text has no scores.

        Raises:
            ModelError, ServiceUnavailable: It is not the text: others have none either.
        """
        record.row_L = None
        if trouble.meaning is Meaning.SLOW:
            self._check_others_are_fast(trouble)
            record.failed = Skipped(HUNG, f"not answered within {self._seconds:g} s")
        elif not trouble.status:
            record.failed = Skipped(NOT_FINITE, "a score is NaN or infinite")
            self._suspicion.failed(Fault("a score is NaN or infinite"))
        else:
            record.failed = Skipped(FAILED, str(trouble))
            self._suspicion.failed(Fault(str(trouble)))

    def _check_others_are_fast(self, trouble: Trouble) -> None:
        if isinstance(self._answer([PLAIN_TEXT]), Trouble):
            raise ServiceUnavailable(
                f"The service at {self._offer.info.model} does not answer within {self._seconds:g} s, even for "
                f"{PLAIN_TEXT!r}",
                rule=f"It is waited for that long ({ANSWER.variable})",
                next_step="look into its log, or wait longer, then run this again; what was scored is kept",
            )

    def _probe(self) -> None:
        """See whether PLAIN_TEXT has scores."""
        answer = self._answer([PLAIN_TEXT])
        if isinstance(answer, Trouble):
            raise _NoScores(str(answer))
        if not np.isfinite(answer.probabilities_DL).all():
            raise _NoScores("a score is NaN or infinite")

    def _answer(self, texts: list[str]) -> Answer | Trouble:
        """The answer, or what is this request's own trouble: REFUSED, SLOW or BROKEN.

        Raises:
            ModelError: No request will be answered, or the answer is none of the planned model.
            ServiceUnavailable: The service is gone for too long.
        """
        attempt = 0
        while True:
            self._link.breaker.wait(self.pause)
            found = self._sent(texts)
            if isinstance(found, Answer):
                return found
            if found.meaning is Meaning.FINAL:
                raise found.final(self._link.address)
            if found.meaning is Meaning.REFUSED:
                return found
            attempt += 1
            if found.meaning is Meaning.SLOW:
                self._sizes.too_slow()
                if attempt >= SLOW_TRIES:
                    return found
            if found.meaning is Meaning.BROKEN and attempt >= BROKEN_TRIES:
                return found
            if found.meaning is not Meaning.BROKEN:
                self._link.breaker.failed(str(found), gone=found.meaning is not Meaning.BUSY)
            self.pause(wait_before(attempt, found.hint))

    def _sent(self, texts: list[str]) -> Answer | Trouble:
        """Send a request once, when it is its turn."""
        name, version = self._link.address.name, self._link.address.version
        request = request_of(name, texts, version=version, input_name=self._offer.card.input_name)
        with self._link.pace.turn(self.pause) as began:
            found = self._result(self._link.infer(request, self._seconds))
            if isinstance(found, Trouble):
                if found.meaning in (Meaning.BUSY, Meaning.SLOW):
                    self._link.pace.refused(began)
                return found
            self._link.pace.answered(began)
        self._link.breaker.passed()
        self._sizes.answered()
        return self._read(found, len(texts))

    def _result(self, call: Any) -> Any:
        with self._changing:
            self._calls.add(call)
        try:
            if self._stopped.is_set():
                call.cancel()
            return call.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if self._stopped.is_set():
                raise Stopped from None
            return self._link.trouble(error if isinstance(error, grpc.RpcError) else call)
        finally:
            with self._changing:
                self._calls.discard(call)

    def _read(self, response: Any, documents: int) -> Answer:
        """The answer in a response.

        Raises:
            ModelError: It is of another model, or has other rows or columns than were asked for.
        """
        self._served.check_version(response.model_version)
        info = self._offer.info
        try:
            return scores_of(response, documents, len(info.labels), self._offer.card.output_name)
        except MessageError as error:
            raise ModelError(
                f"The service at {info.model} answers {documents} texts wrongly: {error.value}",
                rule=error.rule,
                next_step=error.next_step,
            ) from error
