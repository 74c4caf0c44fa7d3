"""Requests about where a session stands: back to a start, states that are kept, and its recording."""

import secrets
from concurrent.futures import Future

from playhead.engine.bridge.server.connection import KnownClient
from playhead.engine.bridge.server.hosted import HostedSnapshot
from playhead.engine.bridge.server.registry import Registry, check_seed, session_bytes
from playhead.engine.bridge.server.replies import Replies
from playhead.engine.bridge.server.sessions import Sessions
from playhead.engine.bridge.server.slices import Slices
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError


class StateHandlers:
    """Their handlers, each by the name of its request. Lives on the server's thread."""

    def __init__(self, registry: Registry, sessions: Sessions, saver: Slices, replies: Replies) -> None:
        """`saver` copies recordings."""
        self._registry, self._sessions, self._saver, self._replies = registry, sessions, saver, replies

    def reset(self, client: KnownClient, request: p.ResetRequest) -> None:
        hosted, registry = self._sessions.controlled(client, request.session), self._registry
        seed = None if request.seed is None else check_seed(request.seed)
        scene = hosted.scene
        reply: Future[object]
        if hosted.public:
            if request.scene:
                raise BridgeError("refused", "the scene of this session is chosen in its window")
            reply = hosted.loop.ask(lambda s: s.reset(s.seed if seed is None else seed), begins=True)
        else:
            if request.scene:
                scene = registry.scene(registry.world(hosted.scene.world), request.scene)
            reply = hosted.loop.ask(
                lambda s: registry.start(s, scene, s.seed if seed is None else seed), begins=True
            )

        def done(_: object) -> None:
            hosted.scene = scene
            self._replies.observed(client, request.id, hosted)

        self._replies.then(client, request.id, reply, done)

    def snapshot(self, client: KnownClient, request: p.SnapshotRequest) -> None:
        hosted, replies = self._sessions.controlled(client, request.session), self._replies
        full = len(hosted.snapshots) + hosted.pending_snapshots >= self._sessions.limits.snapshots
        if not full:
            self._sessions.check_memory(session_bytes(hosted.world))
        elif not hosted.snapshots:
            raise BridgeError("busy", "other snapshots are being taken; wait for their replies")
        else:
            del hosted.snapshots[next(iter(hosted.snapshots))]
        hosted.pending_snapshots += 1
        name = secrets.token_urlsafe(8)

        def done(future: "Future[HostedSnapshot]") -> None:
            hosted.pending_snapshots -= 1
            if future.exception() is None:
                hosted.snapshots[name] = future.result()

        def reply(kept: HostedSnapshot) -> None:
            tick = kept.snapshot.tick
            replies.send(client, p.SnapshotReply(id=request.id, session=hosted.id, snapshot=name, tick=tick))

        asked = hosted.loop.ask(hosted.take_snapshot)
        asked.add_done_callback(lambda future: replies.post(lambda: done(future)))
        replies.then(client, request.id, asked, reply)

    def restore(self, client: KnownClient, request: p.RestoreRequest) -> None:
        hosted = self._sessions.controlled(client, request.session)
        kept = hosted.snapshots.get(request.snapshot)
        if kept is None:
            raise BridgeError("unknown_snapshot", f"no snapshot `{request.snapshot}` is kept; take one first")
        reply = hosted.loop.ask(lambda session: hosted.restore(session, kept), begins=True)
        replies = self._replies
        replies.then(client, request.id, reply, lambda _: replies.observed(client, request.id, hosted))

    def save(self, client: KnownClient, request: p.SaveRequest) -> None:
        hosted, recordings = self._sessions.controlled(client, request.session), self._sessions.recordings
        timeline = hosted.loop.timeline
        recordings.check(timeline)
        assert timeline is not None and timeline.recorder is not None  # else it was refused
        recorder = timeline.recorder

        def saved(found: tuple[str, int]) -> None:
            file, ticks = found
            self._replies.send(client, p.SaveReply(id=request.id, session=hosted.id, file=file, ticks=ticks))

        def written(_: object) -> None:
            save = recordings.save(timeline, request.name)
            self._replies.then(client, request.id, self._saver.submit(client.token, save), saved)

        self._replies.then(client, request.id, hosted.loop.ask(lambda _: recorder.flush()), written)
