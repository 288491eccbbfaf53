"""The object store: answers that are errors, cut, late, lost, old; credentials that expire; an outage."""

from __future__ import annotations

from typing import Any

from tests.faults.case import case
from tests.faults.profile import Profile
from tests.faults.scene import Scene

_S3 = Profile(store="s3")
_S3_POSTGRESQL = Profile(store="s3", warehouse="postgresql")


def _faulty(scene: Scene, fault: str, **how: Any) -> None:
    """Let a share of all requests meet a fault, and the run get through by itself."""
    rule = scene.servers.proxy.rule(fault, seed=scene.some(0, 10**6), **how)
    scene.succeeds(scene.start())
    assert rule.injected, "the fault met no request"


@case("S3: 503 and 500", profile=_S3, short=1)
def refused(scene: Scene) -> None:
    """One request of ten is answered 503 SlowDown, 503 or 500 without a word of S3, 500 InternalError, or 429."""
    faults = ("503 SlowDown", "503", "500", "500 InternalError", "429 TooManyRequests")
    _faulty(scene, scene.random.choice(faults), probability=0.1)


@case("S3: connections reset", profile=_S3)
def reset(scene: Scene) -> None:
    """One connection of twelve is reset in the middle of an answer, or before the server has seen the request."""
    _faulty(scene, scene.random.choice(("reset", "unsent")), probability=0.08)


@case("S3: truncated bodies", profile=_S3)
def truncated(scene: Scene) -> None:
    """One answer of ten ends half-way, and its connection with it."""
    _faulty(scene, "truncated", probability=0.1, verb=("GET", "LIST"))


@case("S3: shortened bodies", profile=_S3)
def shortened(scene: Scene) -> None:
    """Some answers have half of the body, with a length that is right for it: nothing short of a digest sees that."""
    scene.servers.proxy.rule("shortened", verb="GET", probability=0.1, count=6, seed=scene.some(0, 10**6))
    scene.finish(scene.start(), reruns=3)


@case("S3: flipped bits", profile=_S3)
def flipped(scene: Scene) -> None:
    """Some answers that bring what the product wrote itself have one bit changed."""
    key = r"/work/(receipts|parts|manifests|runs)/"
    scene.servers.proxy.rule("flipped", verb="GET", key=key, probability=0.1, count=6, seed=scene.some(0, 10**6))
    scene.finish(scene.start(), reruns=3)


@case("S3: stalls", profile=_S3, limit=300, seeds=3)
def stalls(scene: Scene) -> None:
    """Two answers stop half-way, and their connections stay open."""
    _faulty(scene, "stall", probability=0.1, count=2, verb=("GET", "HEAD", "PUT"), lasting=600)


@case("S3: seconds of latency", profile=_S3, limit=150)
def latency(scene: Scene) -> None:
    """One answer of eight is two seconds late."""
    _faulty(scene, "latency", probability=0.12, lasting=2.0)


@case("S3: lost answers", profile=_S3, short=1)
def lost(scene: Scene) -> None:
    """The server does what is asked, and one answer of twelve does not arrive, whatever the verb."""
    _faulty(scene, "lost", probability=0.08)


@case("S3: lost answers to receipts", profile=_S3)
def lost_receipts(scene: Scene) -> None:
    """The answers to the writing of receipts and parts are lost, of which half are asked again."""
    _faulty(scene, "lost", verb="PUT", key=r"/work/(receipts|parts)/", probability=0.5)


@case("S3: down for some seconds", profile=_S3, limit=150)
def down(scene: Scene) -> None:
    """Connections are reset and refused for five to twelve seconds, at some moment."""
    command = scene.start()
    scene.reached(command, scene.random.choice(("plan", "read", "score", "scored", "validate", "load")), 1)
    scene.servers.proxy.down(scene.random.uniform(5.0, 12.0))
    scene.succeeds(command)


@case("S3: down for a minute", profile=_S3, limit=240, seeds=2)
def down_a_minute(scene: Scene) -> None:
    """Connections are reset and refused for a minute, at some moment."""
    command = scene.start()
    scene.reached(command, scene.random.choice(("read", "score", "scored")), 1)
    scene.servers.proxy.down(60.0)
    scene.succeeds(command)


@case("S3: credentials expire", profile=_S3)
def expired(scene: Scene) -> None:
    """From some moment on every request is refused, as the credentials have expired; new ones go on."""
    command = scene.start()
    scene.reached(command, scene.random.choice(("read", "score", "scored", "load")), 1)
    scene.servers.proxy.rule("400 ExpiredToken")
    scene.fails(command)
    scene.servers.proxy.clear()
    scene.succeeds(scene.start())


@case("S3: listings that lie", profile=_S3)
def stale(scene: Scene) -> None:
    """Half of the listings of the work location are those of its beginning, or leave out a share of what is there."""
    if scene.random.random() < 0.5:
        scene.servers.proxy.rule("stale", key="/work/", probability=0.5, seed=scene.some(0, 10**6))
    else:
        key = f"/(receipts|parts)/[{''.join(scene.random.sample('0123456789abcdef', 6))}]"
        scene.servers.proxy.rule("omitted", key=key, probability=0.5, seed=scene.some(0, 10**6))
    scene.end(scene.start())
    scene.servers.proxy.clear()
    scene.succeeds(scene.start())


@case("S3: everything a little", profile=_S3_POSTGRESQL, limit=150)
def everything(scene: Scene) -> None:
    """503, 500, resets, truncated bodies, lost answers and latency, each at three requests of a hundred."""
    for fault in ("503 SlowDown", "500", "reset", "truncated", "lost", "unsent"):
        scene.servers.proxy.rule(fault, probability=0.03, seed=scene.some(0, 10**6))
    scene.servers.proxy.rule("latency", probability=0.03, lasting=1.0, seed=scene.some(0, 10**6))
    scene.succeeds(scene.start())
