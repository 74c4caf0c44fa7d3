"""What the forms make: films of scripts and sessions that begin with pictures, by the server's own ways."""

import io
import json
from fractions import Fraction

import av
import numpy as np
import pytest

from playhead.engine.bridge.server.limits import Limits
from playhead.engine.session import Session
from playhead.render.demo import gradio_app, picture_start
from playhead.render.export.video import VideoWriter
from playhead.scenes.scene import load_scene
from playhead.scenes.settle import settle_picture
from playhead.world.action import Action
from tests.conftest import BUTTONS, SEED
from tests.engine.bridge.conftest import wait_for
from tests.frame_hashes import frame_hashes
from tests.render.demo.conftest import API, FILM, PICTURE, FormsClient, png, serving_forms
from tests.render.web.page_client import PageClient, frames_of_reply

SCRIPT = "w*3 turn_left+use space*2"
SAME = [{"forward"}] * 3 + [{"turn_left", "use"}] + [{"attack"}] * 2


@pytest.fixture(scope="module")
def served(tiny_world, tiny_scene):
    with serving_forms(tiny_world, tiny_scene) as made:
        yield made


@pytest.fixture
def forms(served) -> FormsClient:
    return FormsClient(served[1])


@pytest.fixture(scope="module")
def wanted(tiny_world, tiny_scene):
    """The frames of the script, the start's first, as a session plays it."""
    scene = load_scene(tiny_scene)
    session = Session(tiny_world, scene.context, scene.seed, scene)
    return [session.frames, *(session.step(Action(frozenset(held))) for held in SAME)]


def decoded(film: bytes) -> tuple[float, np.ndarray]:
    """The rate of a film, and its frames `(T, H, W, 3)`."""
    with av.open(io.BytesIO(film)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        return float(file.streams.video[0].average_rate), np.stack(frames).astype(int)


def npy(rows: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, rows)
    return out.getvalue()


def test_a_film_is_what_a_session_plays(served, forms, wanted, tmp_path):
    made = forms.film(SCRIPT)
    assert made["hash"] == frame_hashes(wanted)[-1]
    told = {name: made[name] for name in ("scene", "seed", "steps", "ticks", "frames")}
    assert told == {"scene": "tiny-scene", "seed": str(SEED), "steps": 2, "ticks": 6, "frames": 7}
    answer = forms.get(made["film"]["url"])
    assert answer.status == 200 and answer.getheader("content-type") == "video/mp4"
    with VideoWriter(tmp_path / "same.mp4", "mp4", (64, 64), Fraction(35, 2)) as film:
        film.write(np.concatenate(wanted))
    (rate, frames), (same_rate, same) = decoded(answer.said), decoded((tmp_path / "same.mp4").read_bytes())
    assert rate == same_rate and frames.shape == same.shape
    assert np.abs(frames - same).mean() < 2  # an encoder with threads may round otherwise another time
    part = forms.get(made["film"]["url"], range="bytes=4-7")  # by which a browser goes to any moment of it
    assert part.status == 206 and part.said == b"ftyp"
    assert not len(served[0].sessions)


def test_an_uploaded_array_counts_in_place_of_the_script_whatever_it_is_called(forms, wanted):
    rows = np.array([[name in held for name in BUTTONS] for held in SAME], np.uint8)
    for name in ("a.npy", "../../../etc/passwd", "world.py", 'x"; y="', "\u202e.mp4"):
        array = forms.uploaded(npy(rows), name.replace('"', "%22"))
        assert forms.film("w", array=array)["hash"] == frame_hashes(wanted)[-1]


def test_another_seed_and_steps_are_other_films_and_the_same_ones_equal(forms):
    seed = str(2**64 - 1)
    first = forms.film(SCRIPT, seed=seed, steps=1)
    assert (first["seed"], first["steps"]) == (seed, 1)
    assert first["hash"] == forms.film(SCRIPT, seed=seed, steps=1)["hash"]
    assert len({first["hash"], *(forms.film(SCRIPT, seed=s)["hash"] for s in ("", "1"))}) == 3


def test_how_far_it_is_is_told_on_the_way(forms, monkeypatch):
    monkeypatch.setattr(gradio_app, "TELL", 0.0)
    forms.film("w*12")
    told = " ".join(json.dumps(message) for message in forms.told)
    assert "1 of 12 ticks" in told and '"max=\\"12\\"' not in told and "12 of 12 ticks" in told
    assert sum(message["msg"] == "process_generating" for message in forms.told) >= 12


def test_a_film_that_is_stopped_ends_its_session(served, forms, monkeypatch):
    monkeypatch.setattr(gradio_app, "TELL", 0.0)
    server, _ = served
    session = forms.join(FILM, "tiny", "tiny-scene", "", None, "w*2000", None)
    for message in forms.messages(session):
        if message["msg"] == "process_generating":
            assert len(server.sessions) == 1
            config = json.loads(forms.get("/demo/config").said)
            (index,) = (d["id"] for d in config["dependencies"] if d["api_name"] == FILM)
            asked = {"session_hash": session, "fn_index": index, "event_id": message["event_id"]}
            assert forms.post(f"{API}/cancel", asked).status == 200
            break
    wait_for(lambda: not len(server.sessions))


def test_a_page_that_goes_away_ends_its_film(served, forms, monkeypatch):
    monkeypatch.setattr(gradio_app, "TELL", 0.0)
    server, _ = served
    for message in forms.messages(forms.join(FILM, "tiny", "tiny-scene", "", None, "w*2000", None)):
        if message["msg"] == "process_generating":
            break
    wait_for(lambda: not len(server.sessions))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"script": "jump"}, "no key or button"),
        ({"script": ""}, "1 to 2048 ticks"),
        ({"script": "w*2049"}, "1 to 2048 ticks"),
        ({"script": "w*9999999"}, "count"),
        ({"seed": "-1"}, "whole number"),
        ({"seed": str(2**64)}, "whole number"),
        ({"seed": "0x1"}, "whole number"),
        ({"steps": 900}, "steps"),
        ({"array": {"path": "nothing", "meta": {"_type": "gradio.FileData"}}}, "upload it again"),
    ],
)
def test_what_cannot_be_filmed_is_said_in_a_sentence(served, forms, wrong, said):
    asked = {"world": "tiny", "scene": "tiny-scene", "seed": "", "steps": None, "script": "w", "array": None}
    sentence = forms.refusal(FILM, *{**asked, **wrong}.values())
    assert said in sentence and "\n" not in sentence and "/" not in sentence
    assert not len(served[0].sessions)


def test_what_is_no_array_of_actions_is_said_to_be_none(forms):
    for data in (b"x", npy(np.zeros((2, 3))), npy(np.array([{}], object)), npy(np.full((2, 8), 7))):
        sentence = forms.refusal(FILM, "tiny", "tiny-scene", "", None, "w", forms.uploaded(data))
        assert ".npy" in sentence and "playhead-demo" not in sentence


def test_films_take_no_more_sessions_than_there_are(tiny_world, tiny_scene):
    with serving_forms(tiny_world, tiny_scene, Limits(sessions=1)) as (_, door):
        forms = FormsClient(door)
        with PageClient(door.link) as page:
            page.ask("open")
            assert "close one" in forms.refusal(FILM, "tiny", "tiny-scene", "", None, "w", None)
        assert "close one" in forms.refusal(PICTURE, forms.uploaded(png()), "tiny", "", "")


def test_a_picture_is_where_a_session_begins_for_the_page_to_take(served, forms, tiny_world, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    context = settle_picture(tiny_world, tmp_path / "a.png", 8, 4, 7)
    scripted = Session(tiny_world, context, 7)
    last = forms.send(PICTURE, forms.uploaded(png()), "tiny", "", "7")
    (live,) = last["output"]["data"]
    id = live.partition("#play=")[2].partition('"')[0]
    with PageClient(served[1].link) as page:
        opened = page.ask("attach", session=id)
        assert (opened["clock"], opened["scene"]["title"], opened["seed"]) == ("live", "From a picture", 7)
        assert opened["tick"] == 0 and np.array_equal(frames_of_reply(opened), scripted.frames)
        taken = page.ask("control", session=id, want="take")
        assert taken["in_control"]  # nobody had it any more
        page.ask("tune", session=id, clock="lockstep")
        page.ask("reset", session=id)
        stepped = page.ask("step", session=id, actions=[{"buttons": ["forward"]}])
        assert np.array_equal(frames_of_reply(stepped), scripted.step(Action(frozenset({"forward"}))))
        page.ask("close", session=id)
    assert served[0].sessions.reserved == 0


def test_what_is_no_picture_starts_nothing(served, forms, monkeypatch):
    whole = png()
    for data in (
        b"x",
        b"\x89PNG\r\n\x1a\n",
        whole[: len(whole) // 2],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ):
        assert "picture" in forms.refusal(PICTURE, forms.uploaded(data, "a.svg"), "tiny", "", "")
    assert "no picture yet" in forms.refusal(PICTURE, None, "tiny", "", "")
    assert "whole number" in forms.refusal(PICTURE, forms.uploaded(whole), "tiny", "", "seven")
    monkeypatch.setattr(picture_start, "PIXELS", 48 * 80 - 1)
    assert "scale it down" in forms.refusal(PICTURE, forms.uploaded(whole), "tiny", "", "")
    assert not len(served[0].sessions) and served[0].sessions.reserved == 0


def test_gradios_own_client_sends_the_forms_too(served, wanted, tmp_path):
    """The lines of docs/demo.md, but for the world."""
    from gradio_client import Client, handle_file

    _, door = served
    (tmp_path / "a.png").write_bytes(png())
    origin = door.link.removesuffix("/demo/")
    forms = Client(door.link, headers={"origin": origin}, verbose=False, analytics_enabled=False)
    try:
        *_, said = forms.predict("tiny", "tiny-scene", "", 2, SCRIPT, None, api_name="/film")
        assert said["hash"] == frame_hashes(wanted)[-1]
        live = forms.predict(handle_file(str(tmp_path / "a.png")), "tiny", "", "7", api_name="/picture")
        id = live.partition("#play=")[2].partition('"')[0]
        with PageClient(door.link) as page:
            assert page.ask("control", session=id, want="take")["in_control"]
            page.ask("close", session=id)
    finally:
        forms.close()
