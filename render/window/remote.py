"""Playing a session on another machine, and what a window has to know of it."""

import threading
from concurrent.futures import Future

import pygame

from playhead.controls.keymap import Keymap
from playhead.controls.player import Player
from playhead.engine.bridge.client.remote_loop import RemoteLoop
from playhead.engine.bridge.client.remote_session import RemoteSession, SessionOptions
from playhead.engine.bridge.wire.auth import load_client_keys
from playhead.engine.bridge.wire.protocol import CODECS, SceneInfo
from playhead.engine.tick import Tick
from playhead.render.window.screens import draw_loading
from playhead.render.window.settings import PaceSettings, ServerSettings, SessionSettings
from playhead.render.window.sharing import RemoteSharing
from playhead.render.window.view import View
from playhead.render.window.window import Window, wake
from playhead.world.action import Action
from playhead.world.errors import PlayheadError


def connect(
    window: Window, server: ServerSettings, session: SessionSettings, pace: PaceSettings
) -> RemoteSession | None:
    """Connects to a server, while the window says so; None if it is closed before there is an answer.

    Keys that are pressed meanwhile count for the play. Raises PlayheadError for whatever prevents it.
    """
    answer: Future[RemoteSession] = Future()

    def run() -> None:
        try:
            answer.set_result(_dial(server, session, pace))
        except BaseException as error:
            answer.set_exception(error)
        wake()

    threading.Thread(target=run, name="dialling", daemon=True).start()
    early: list[pygame.Event] = []
    while not answer.done():
        draw_loading(window.screen, f"connecting to {server.address}", 0.5)
        window.show()
        early += window.events(0.25)
        if any(event.type in (pygame.QUIT, pygame.WINDOWCLOSE) for event in early):
            return None
    for event in early:
        pygame.event.post(event)
    return answer.result()


def _dial(server: ServerSettings, session: SessionSettings, pace: PaceSettings) -> RemoteSession:
    for option, given in (
        ("--device", session.device != "auto"),
        ("--attention", session.attention),
        ("--precision", session.precision),
        ("--decoder", session.decoder),
        ("--cache", session.cache),
        ("--vram or --ram", session.budget),
        ("--gpus", session.gpus),
        ("--decoder-device", session.decoder_device),
    ):
        if given:
            raise PlayheadError(f"{option} is the server's to choose; leave it out with --connect")
    if server.codec not in CODECS:
        raise PlayheadError(f"--codec is one of {', '.join(CODECS)}, not `{server.codec}`")
    keys = load_client_keys(server.secret_key, server.server_key)
    wanted = SessionOptions(
        world=session.world or "",
        scene=session.scene or "",
        seed=session.seed,
        steps=session.steps,
        auto_steps=pace.auto_steps,
        speed=pace.speed,
        hold=pace.hold,
        codec=server.codec,
    )
    return RemoteSession(server.address, keys, wanted)


class RemotePlay:
    """A session on a server and the loop that plays it from here: a `PlayedSession`."""

    moments: None = None

    def __init__(
        self,
        remote: RemoteSession,
        session: SessionSettings,
        pace: PaceSettings,
        keymap: Keymap,
        player: Player,
        view: View,
    ) -> None:
        keymap.check(remote.opened.world.action_space)
        self._remote = remote
        self.loop = RemoteLoop(
            remote,
            player,
            key_time=lambda: player.key_time,
            script=_load_script(session.script, remote, keymap.aliases),
            last=pace.ticks,
            complain=view.say,
        )
        self.sharing = RemoteSharing(self.loop, keymap)
        player.fed = self.loop.poke
        player.sample_often(1 / remote.opened.world.ticks_per_second)

    @property
    def title(self) -> str:
        return self._remote.scene.title

    @property
    def scene_name(self) -> str:
        return self._remote.scene.name

    def take_remark(self) -> str:
        remark, self._remote.remark = self._remote.remark, ""
        return remark

    def enter(self, tick: Tick) -> bool:
        return False

    def update(self) -> bool:
        return False

    def switch(self, by: int) -> None:
        self.loop.switch(lambda: self._neighbour(by))

    def prompt_note(self, key: int) -> str:
        return ""

    def _neighbour(self, by: int) -> SceneInfo:
        """The scene that comes `by` after the present one among those of its world."""
        scenes, here = self._remote.opened.world.scenes, self._remote.scene.name
        if not scenes:
            raise PlayheadError("the scene of this session is chosen in its own window")
        names = [scene.name for scene in scenes]
        return scenes[((names.index(here) if here in names else -1) + by) % len(scenes)]


def _load_script(script: str | None, remote: RemoteSession, aliases: dict[str, str]) -> list[Action]:
    """The actions of `--script`, in the words of the world at the other end."""
    if script is None:
        return []
    from playhead.controls.script import load_actions

    if remote.public:
        raise PlayheadError("--script needs a session of its own; the one of a window goes on by itself")
    return load_actions(script, remote.opened.world.action_space, aliases)
