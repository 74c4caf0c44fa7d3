"""Playing from another machine: the session behind a line, in place of one that is opened here."""

import threading
from concurrent.futures import Future

import pygame

from playhead.controls.keymap import Keymap
from playhead.engine.bridge.client.remote_loop import RemoteLoop
from playhead.engine.bridge.client.remote_session import RemoteSession, Wanted
from playhead.engine.bridge.wire.auth import load_client_keys
from playhead.engine.bridge.wire.protocol import CODECS, LOCAL, Controlled, SceneInfo
from playhead.render.window.screens import draw_loading
from playhead.render.window.settings import PlaySettings
from playhead.render.window.sharing import NEEDS_CONTROL
from playhead.render.window.window import Window, wake
from playhead.world.action import Action, ActionSpace
from playhead.world.errors import PlayheadError
from playhead.world.home import if_any, recordings_folder


def dial(settings: PlaySettings) -> RemoteSession:
    """Connects to the server that is to be played on. Raises PlayheadError for whatever prevents that."""
    assert settings.connect is not None
    for option, given in (("--device", settings.device != "auto"), ("--attention", settings.attention)):
        if given:
            raise PlayheadError(f"{option} is the server's to choose; leave it out with --connect")
    if settings.continued or settings.recordings not in (None, *if_any(recordings_folder)):
        raise PlayheadError("recordings are of sessions that are played here; leave them out with --connect")
    if settings.codec not in CODECS:
        raise PlayheadError(f"--codec is one of {', '.join(CODECS)}, not `{settings.codec}`")
    keys = load_client_keys(settings.key, settings.server_key)
    wanted = Wanted(
        world=settings.world or "",
        scene=settings.scene or "",
        seed=settings.seed,
        steps=settings.steps,
        auto_steps=settings.auto_steps,
        speed=settings.speed,
        hold=settings.hold,
        codec=settings.codec,
    )
    return RemoteSession(settings.connect, keys, wanted)


def dial_in(window: Window, settings: PlaySettings) -> RemoteSession | None:
    """As `dial`, while the window says so; None if it is closed before there is an answer.

    Keys that are pressed meanwhile count for the play.
    """
    answer: Future[RemoteSession] = Future()

    def run() -> None:
        try:
            answer.set_result(dial(settings))
        except BaseException as error:
            answer.set_exception(error)
        wake()

    threading.Thread(target=run, name="dialling", daemon=True).start()
    early: list[pygame.Event] = []
    while not answer.done():
        draw_loading(window.screen, f"connecting to {settings.connect}", 0.5)
        window.show()
        early += window.events(0.25)
        if any(event.type in (pygame.QUIT, pygame.WINDOWCLOSE) for event in early):
            return None
    for event in early:
        pygame.event.post(event)
    return answer.result()


class RemoteOpening:
    """What is played at the other end of a line, as `Opening` says it of a session here."""

    def __init__(self, line: RemoteSession) -> None:
        self._line = line

    @property
    def scene(self) -> SceneInfo:
        return self._line.scene

    @property
    def title(self) -> str:
        """The title of the scene that is played."""
        return self._line.scene.title

    @property
    def remark(self) -> str:
        """What the player ought to know when a session begins."""
        return self._line.remark

    @remark.setter
    def remark(self, remark: str) -> None:
        self._line.remark = remark

    def neighbour(self, by: int) -> SceneInfo:
        """The scene that comes `by` after the present one among those of its world."""
        scenes = self._line.opened.world.scenes
        if not scenes:
            raise PlayheadError("the scene of this session is chosen in its own window")
        names = [scene.name for scene in scenes]
        here = names.index(self.scene.name) if self.scene.name in names else -1
        return scenes[(here + by) % len(scenes)]


class RemoteSharing:
    """Who controls the session at the other end, as `Sharing` says it of one here."""

    def __init__(self, loop: RemoteLoop, keymap: Keymap) -> None:
        self._loop = loop
        keys = keymap.window.get("control")
        self._key = keys[0] if keys else "no key"

    def hand_over(self) -> str:
        """Gives the control to the one who asks, or asks for it. Returns what there is to say."""
        control = self._loop.control
        if control.in_control and not control.asking:
            return "nobody asks for the control"
        self._loop.hand_over()
        return "" if control.in_control else f"{_who(control)} is asked for the control"

    def refusal(self, function: str) -> str:
        """Why a function of the window has to wait; empty if it need not."""
        control = self._loop.control
        if control.in_control or function not in NEEDS_CONTROL:
            return ""
        return f"{_who(control)} is in control: {self._key} asks for it"

    @property
    def said(self) -> list[str]:
        """Who else plays, or would like to; in a few words each."""
        control = self._loop.control
        if not control.in_control:
            return [f"{_who(control)} plays   {self._key} asks for the control"]
        return [f"{control.asking} asks to play   {self._key} lets it"] if control.asking else []


def _who(control: Controlled) -> str:
    """The holder of the control, by name."""
    return "the person there" if control.holder == LOCAL else control.holder or "nobody"


def script_of(settings: PlaySettings, line: RemoteSession, aliases: dict[str, str]) -> list[Action]:
    """The actions of `--script`, in the words of the world at the other end."""
    if settings.script is None:
        return []
    from playhead.controls.script import load_actions

    if line.public:
        raise PlayheadError("--script needs a session of its own; the one of a window goes on by itself")
    world = line.opened.world
    return load_actions(settings.script, ActionSpace(tuple(world.buttons), tuple(world.axes)), aliases)
