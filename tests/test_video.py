"""Video files: they play everywhere, in their true colours, and carry their recipe; strangers' do no harm."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from strangers import refused

from refusal_core.errors import FileError, InputError
from refusal_core.io.decoding import ffmpeg
from refusal_core.io.video import Video, VideoPair, enlarged, load_video, save_video

GOLDEN = Path(__file__).parent / "golden" / "pair.mp4"


def moving_bar() -> Video:
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    for t in range(9):
        frames[t, :, 6 * t : 6 * t + 8] = (200, 60, 20)
    return Video(frames, 8.0)


def make(path: Path, *arguments: object, **options: object) -> Path:
    """Make a file with ffmpeg."""
    command = [ffmpeg(), "-v", "error", "-y", *map(str, arguments), str(path)]
    subprocess.run(command, check=True, **options)
    return path


def film(path: Path, frames: int, width: int, height: int) -> Path:
    """Write a video that is small as a file and large when it is read."""
    grey = f"color=gray:size={width}x{height}:rate=8"
    how = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -crf 51 -f mp4"
    return make(path, "-f", "lavfi", "-i", grey, "-frames:v", frames, *how.split())


# --- written -------------------------------------------------------------------------------------------


def test_a_video_file_keeps_frames_rate_and_recipe(tmp_path: Path) -> None:
    video = moving_bar()
    recipe = {"prompt": "a = b; c # é \\ x", "seed": 7, "pairs": [["a", "b"]]}
    path = save_video(video, tmp_path / "bar.mp4", recipe)
    read, written = load_video(path)
    assert written == recipe
    assert read.fps == 8.0
    assert read.frames.shape == (9, 384, 384, 3)
    error = np.abs(read.frames.astype(int) - enlarged(video).frames.astype(int)).mean()
    assert error < 6  # h264 at crf 16
    assert list(tmp_path.iterdir()) == [path]


def test_a_recipe_of_a_megabyte_comes_back_the_same(tmp_path: Path) -> None:
    """A command line ends at 128 kB."""
    text = "\n[STREAM]\r\ncomment=x \" ' = ; # \\ \\\\ é \u2028 \U0001f525 \t" * 14_000
    recipe = {"prompt": text, text[:90]: [None, 1.5, {"": text[5:95]}]}
    assert 900_000 < len(json.dumps(recipe)) < 1 << 20
    assert load_video(save_video(moving_bar(), tmp_path / "bar.mp4", recipe))[1] == recipe


def test_a_rate_that_is_no_whole_number_is_kept(tmp_path: Path) -> None:
    video = Video(moving_bar().frames, 30000 / 1001)
    assert load_video(save_video(video, tmp_path / "bar.mp4"))[0].fps == 30000 / 1001


def test_a_video_file_starts_at_once_in_a_browser(tmp_path: Path) -> None:
    """faststart: the index stands before the frames."""
    raw = save_video(moving_bar(), tmp_path / "bar.mp4").read_bytes()
    assert 0 < raw.index(b"moov") < raw.index(b"mdat")
    assert b"avc1" in raw


def test_side_by_side_is_as_wide_as_both(tmp_path: Path) -> None:
    path = VideoPair(moving_bar(), moving_bar()).save(tmp_path / "both.mp4")
    assert load_video(path)[0].frames.shape[1:3] == (384, 2 * 384 + 12)


def test_odd_sizes_get_an_edge_and_nothing_is_scaled(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 391, 33, 1), np.uint8).repeat(3, 3)
    read = load_video(save_video(Video(frames, 8.0), tmp_path / "odd.mp4"))[0].frames.astype(int)
    assert read.shape == (2, 392, 34, 3)
    assert np.abs(read[:, :391, :33] - frames).mean() < 6


SHOWN = """async (encoded) => {
    const bytes = Uint8Array.from(atob(encoded), c => c.charCodeAt(0));
    const video = document.createElement('video');
    video.muted = video.loop = true;
    document.body.append(video);
    video.src = URL.createObjectURL(new Blob([bytes], {type: 'video/mp4'}));
    await new Promise((done, fail) => {
        video.requestVideoFrameCallback(done);
        video.onerror = fail;
        video.play();
    });
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext('2d');
    context.drawImage(video, 0, 0);
    return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].slice(0, 3);
}"""


@pytest.mark.parametrize("size", [(720, 1280), (480, 832), (64, 64)])
def test_a_browser_shows_the_colours_that_were_given(size, browser: Browser, tmp_path: Path) -> None:
    """Untagged, it takes a file of 720 lines for BT.709, one of fewer for BT.601."""
    page = browser.new_page()
    # Chromium's own sum takes 2.0 for 2.11, so that strong blues are a little weak.
    for colour in ((220, 30, 30), (127, 127, 127), (250, 250, 250)):
        frames = np.broadcast_to(np.array(colour, np.uint8), (4, *size, 3)).copy()
        path = save_video(Video(frames, 8.0), tmp_path / "plain.mp4")
        shown = page.evaluate(SHOWN, base64.b64encode(path.read_bytes()).decode())
        assert np.abs(np.subtract(shown, colour)).max() <= 3, (colour, shown)
        decoded = load_video(path)[0].frames[0, 40, 40].astype(int)
        assert np.abs(decoded - colour).max() <= 3, (colour, decoded)
    page.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio's pipe is left open
def test_where_the_encoder_fails_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_video(moving_bar(), tmp_path / "bar.mp4", {"seed": 1})
    for broken in ("/bin/false", "/bin/true", "/no/such/program"):
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", broken)
        with pytest.raises(FileError, match=r"bar.mp4 cannot be written \(ffmpeg failed"):
            save_video(moving_bar(), path, {"seed": 2})
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    assert list(tmp_path.iterdir()) == [path] and load_video(path)[1] == {"seed": 1}


# --- read ----------------------------------------------------------------------------------------------


def test_a_file_of_an_older_version_opens() -> None:
    video, recipe = load_video(GOLDEN)
    assert video.frames.shape == (5, 384, 780, 3) and video.fps == 8.0
    assert recipe["note"] == "quotes \" ' = ; # \\ é\nline"


def test_files_that_are_no_video_get_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(FileError, match=r"a.mp4 cannot be read as a video"):
        load_video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"'a.gif' must end in .mp4"):
        save_video(moving_bar(), tmp_path / "a.gif")


def test_a_video_with_its_index_at_the_end_is_read(tmp_path: Path) -> None:
    raw = film(tmp_path / "film.mp4", 3, 32, 32).read_bytes()
    assert raw.index(b"moov") > raw.index(b"mdat")
    assert load_video(tmp_path / "film.mp4")[0].frames.shape == (3, 32, 32, 3)


@pytest.mark.security
@pytest.mark.parametrize(
    ("frames", "width", "height", "sentence"),
    [
        (1, 4096, 4096, "has frames of 4096 x 4096"),
        (100, 960, 544, "over 64 frames of 960 x 544"),
        (101, 32, 32, "over 100 frames"),
    ],
)
def test_videos_that_are_made_to_exhaust_are_refused(
    frames, width, height, sentence, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("refusal_core.io.video.MAX_READ_FRAMES", 100)  # 1000 take seconds to write
    path = film(tmp_path / "film.mp4", frames, width, height)
    assert path.stat().st_size < 1 << 20
    assert sentence in refused(load_video, path)


def test_the_largest_frames_that_are_read_fit_the_child(tmp_path: Path) -> None:
    assert len(load_video(film(tmp_path / "film.mp4", 14, 2048, 1088))[0].frames) == 14


@pytest.mark.security
def test_a_playlist_is_not_followed_to_other_files(tmp_path: Path) -> None:
    """ffmpeg, given a name, looks at what is in the file, and opens what that names."""
    secret = film(tmp_path / "secret.ts", 2, 32, 32)
    path = tmp_path / "list.mp4"
    for text in (f"ffconcat version 1.0\nfile {secret.name}\n", f"#EXTM3U\n#EXTINF:1,\n{secret.name}\n"):
        path.write_text(text)
        refused(load_video, path)
    path.write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    frame = make(tmp_path / "frame.png", "-i", path, "-frames:v", 1)
    assert frame.stat().st_size, "the danger is not there, and the test proves nothing"


@pytest.mark.security
def test_a_video_without_pictures_is_refused(tmp_path: Path) -> None:
    silence = "-f lavfi -i anullsrc=r=8000:cl=mono -t 0.2 -c:a aac".split()
    refused(load_video, make(tmp_path / "sound.mp4", *silence))


@pytest.mark.security
@pytest.mark.parametrize(
    "comment", ["[" * 100_000, "NaN", '{"a": NaN}', "[]", "null", '"x"', "x" * (2 << 20), "{"], ids=range(8)
)
def test_a_comment_that_is_no_recipe_counts_as_none(comment: str, tmp_path: Path) -> None:
    path = save_video(moving_bar(), tmp_path / "clip.mp4", {"recipe": 1})
    assert load_video(path)[1] == {"recipe": 1}
    how = "-f ffmetadata -i pipe:0 -map 0:v -map_metadata 1 -c copy"
    other = make(
        tmp_path / "other.mp4", "-i", path, *how.split(), input=f";FFMETADATA1\ncomment={comment}\n".encode()
    )
    assert load_video(other)[1] == {}


# --- the child -----------------------------------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("time.sleep(600)", "takes too long to be read"),
        ("print('YUV4MPEG2 W4 H4 F8:1 Ip C444', flush=True); time.sleep(600)", "takes too long to be read"),
        ("while True: print('comment=x' * 99, flush=True)", "cannot be read as a video"),
        ("os.kill(os.getpid(), 9)", "cannot be read as a video"),
        ("print('YUV4MPEG2 W4 H4 F8:1 Ip C444'); print('FRAME')", "cannot be read as a video"),
        ("print('YUV4MPEG2 W0 H4 F8:1 Ip C444'); print('FRAME')", "cannot be read as a video"),
        ("time.sleep(0.2); bytearray(3 << 30)", "cannot be read as a video"),
        ("time.sleep(0.2); open('written', 'w').write('x')", "cannot be read as a video"),
    ],
    ids=["hangs", "stops", "never ends", "is killed", "half a frame", "no pixels", "takes memory", "writes"],
)
def test_a_child_that_does_not_do_its_work_gives_one_sentence(
    code: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!{sys.executable} -S\nimport os, time\nos.chdir({str(tmp_path)!r})\n{code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("refusal_core.io.decoding.SECONDS", 2.0)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    assert sentence in refused(load_video, GOLDEN)
    assert not any(path.stat().st_size for path in tmp_path.glob("written"))


@pytest.mark.security
def test_the_child_is_told_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, seen = tmp_path / "ffmpeg", tmp_path / "seen"
    program.write_text(f"#!{sys.executable} -S\nimport os\nprint('comment=' + ' '.join(os.environ))\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    monkeypatch.setenv("SECRET_KEY", "x")
    from refusal_core.io.decoding import decoding

    with GOLDEN.open("rb") as file, decoding(file, "") as stream:
        seen.write_bytes(stream.read())
    assert "PATH" in seen.read_text() and "SECRET_KEY" not in seen.read_text()
    assert "SECRET_KEY" in os.environ
