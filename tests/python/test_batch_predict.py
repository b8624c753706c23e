"""convship predict: no row lost or twice, whoever is killed; a Predictor for map_batches."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults_for_tests import FULL
from models_for_tests import LABELS, classifier
from PIL import Image

import convship
from convship.batch_predict.blocks import list_blocks, predict_block
from convship.batch_predict.collection import SETTINGS, predict_collection
from convship.batch_predict.predictor import ERROR, PREDICTIONS, Predictor
from convship.errors import ModelFileNotFoundError

REASON = "needs pip install 'convship[ray]'"
pa = pytest.importorskip("pyarrow", reason=REASON)
pq = pytest.importorskip("pyarrow.parquet", reason=REASON)
ray = pytest.importorskip("ray", reason=REASON)

PATIENCE = 300
full = pytest.mark.skipif(not FULL, reason="starts Ray several times: scripts/test --full")
BROKEN = "b/broken.jpg"


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> tuple[Path, Path, dict[str, tuple[str, float] | None]]:
    """A model, a folder of images of which one is broken, and each image's best class."""
    folder = tmp_path_factory.mktemp("collection")
    images = folder / "images"
    generator = np.random.default_rng(0)
    for index in range(180):
        file = images / "ab"[index % 2] / f"{index:03}.{'jpg' if index % 3 else 'png'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((24 + index % 7, 20)).save(file)
    network, preprocess = classifier()
    samples = [images / "a/000.png", images / "b/001.jpg"]
    model = folder / "model.pt"
    convship.export_model(network, model, samples=samples, preprocess=preprocess, labels=LABELS)
    loaded = convship.load(model)
    expected: dict[str, tuple[str, float] | None] = {}
    for file in sorted(images.rglob("*.*")):
        (best,) = loaded.predict(file)
        expected[str(file.relative_to(images))] = (best.label, best.probability)
    (images / BROKEN).write_bytes(b"\xff\xd8\xff no photograph")
    expected[BROKEN] = None
    return model, images, expected


def rows_of(out: Path) -> list[dict]:
    return [
        row for file in sorted(out.glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


def check_rows(rows: list[dict], expected: dict, key: Callable[[dict], str]) -> None:
    """Every image once, with the answer that one process gives, to the last bit."""
    assert sorted(key(row) for row in rows) == sorted(expected)
    for row in rows:
        if (answer := expected[key(row)]) is None:
            assert row[PREDICTIONS] is None
            assert "JPEG" in row[ERROR]
        else:
            (best,) = row[PREDICTIONS]
            assert (best["label"], best["probability"]) == (answer[0], np.float32(answer[1]))
            assert row[ERROR] is None


def by_path(row: dict) -> str:
    return row["path"]


class TestPredictor:
    def test_columns_stay_and_two_are_added(self, collection):
        model, images, expected = collection
        names = ["a/000.png", BROKEN]
        table = pa.table({"bytes": [(images / name).read_bytes() for name in names], "path": names})
        result = Predictor(model, threads=None)(table)
        assert result.column_names == ["bytes", "path", PREDICTIONS, ERROR]
        check_rows(result.to_pylist(), {name: expected[name] for name in names}, by_path)

    def test_struct_of_bytes_and_several_classes(self, collection):
        model, images, _ = collection
        image = {"bytes": (images / "a/000.png").read_bytes(), "path": "x"}
        predictor = Predictor(model.read_bytes(), column="image", top_k=3, threads=None)
        (row,) = predictor(pa.table({"image": [image]})).to_pylist()
        found = convship.load(model).predict(image["bytes"], top_k=3)
        assert [each["label"] for each in row[PREDICTIONS]] == [p.label for p in found]

    def test_missing_image_is_an_error_of_its_row(self, collection):
        table = pa.table({"bytes": pa.array([None], pa.binary())})
        (row,) = Predictor(collection[0], threads=None)(table).to_pylist()
        assert (row[PREDICTIONS], row[ERROR]) == (None, "no encoded image but NoneType")

    def test_wrong_batches_fail(self, collection):
        predictor = Predictor(collection[0], threads=None)
        with pytest.raises(TypeError, match="batch_format='pyarrow'"):
            predictor({"bytes": np.zeros(1)})
        with pytest.raises(ValueError, match="no column 'bytes'; there are image"):
            predictor(pa.table({"image": [b""]}))
        with pytest.raises(ValueError, match="a column prediction_error already"):
            predictor(pa.table({"bytes": [b""], ERROR: [""]}))


class TestBlocks:
    def test_blocks_are_the_same_each_time_and_cover_all(self, collection):
        _, images, expected = collection
        blocks, digest = list_blocks(images, 50)
        assert (blocks, digest) == list_blocks(images, 50)
        assert [len(block.files) for block in blocks] == [50, 50, 50, 31]
        assert sorted(file for block in blocks for file in block.files) == sorted(expected)

    def test_block_done_twice_is_the_same_file(self, collection, tmp_path):
        model, images, _ = collection
        predictor = Predictor(model, threads=None)
        (block, *_), _ = list_blocks(images, 20)
        contents = set()
        for _ in range(2):
            assert predict_block(block, predictor, tmp_path) == 20
            contents.add((tmp_path / block.name).read_bytes())
        assert len(contents) == 1

    def test_digest_knows_files_and_how_they_are_cut(self, tmp_path):
        def digest(rows: int, row_group_size: int) -> str:
            pq.write_table(
                pa.table({"image": [b""] * rows}), tmp_path / "a.parquet",
                row_group_size=row_group_size, compression="none",
            )  # fmt: skip
            return list_blocks(tmp_path / "a.parquet")[1]

        assert digest(8, 4) == digest(8, 4)
        assert len({digest(8, 4), digest(8, 2), digest(9, 4)}) == 3
        # As many blocks, but other ones: the files of one would not fit those of the other.
        (tmp_path / "images").mkdir()
        for name in "abc":
            Image.new("RGB", (9, 9)).save(tmp_path / f"images/{name}.png")
        two, three = (list_blocks(tmp_path / "images", rows) for rows in (3, 4))
        assert [block.files for block in two[0]] == [block.files for block in three[0]]
        assert list_blocks(tmp_path / "images", 1)[1] != two[1] == three[1]

    def test_image_that_vanished_is_a_row_with_an_error(self, collection, tmp_path):
        images = tmp_path / "images"
        images.mkdir()
        Image.new("RGB", (9, 9)).save(images / "a.png")
        (block,), _ = list_blocks(images)
        (images / "a.png").unlink()
        predict_block(block, Predictor(collection[0], threads=None), tmp_path)
        (row,) = rows_of(tmp_path)
        assert (row["path"], row[PREDICTIONS]) == ("a.png", None)

    def test_wrong_inputs_fail(self, tmp_path, collection):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match="got neither"):
            list_blocks(tmp_path / "empty")
        pq.write_table(pa.table({"image": [b""]}), tmp_path / "a.parquet")
        Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match="got both"):
            list_blocks(tmp_path)
        with pytest.raises(FileNotFoundError, match="no such folder"):
            list_blocks(tmp_path / "none")


class Job:
    """The command as a process, with Ray's processes found by a mark in their environment."""

    def __init__(self, *arguments: object) -> None:
        self.mark = f"CONVSHIP_TEST_JOB={uuid.uuid4()}"
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "convship.cli", "predict", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, name: value, "HOME": str(Path(arguments[0]).parent)},  # its token
        )

    def end(self) -> str:
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors
        return output

    def processes(self, title: bytes = b"") -> list[int]:
        """Ids of those whose command begins so."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes()
                    found += [int(folder.name)] if command.startswith(title) else []
            except OSError:
                continue  # it has ended
        return found

    def wait_for_files(self, out: Path, count: int) -> None:
        end = time.monotonic() + PATIENCE
        while len(list(out.glob("*.parquet"))) < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)

    def clear(self) -> None:
        """End what is left."""
        self.process.kill()
        self.process.communicate()
        end = time.monotonic() + PATIENCE
        while (left := self.processes()) and time.monotonic() < end:
            for process in left:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.1)


def test_folder_of_images_on_two_workers(collection, tmp_path):
    model, images, expected = collection
    out = tmp_path / "out"
    arguments = (model, images, "--out", out, "--workers", 2, "--block-rows", 40)
    output = Job(*arguments).end()
    assert output == f"{out}: 181 rows in 5 files, 1 with an error; 0 files were there before\n"
    check_rows(rows_of(out), expected, by_path)
    # Readers of folders see the predictions and nothing else.
    assert pq.read_table(out).num_rows == 181


@full
def test_killed_worker_loses_no_row_and_makes_none_twice(collection, tmp_path):
    model, images, expected = collection
    out = tmp_path / "out"
    job = Job(model, images, "--out", out, "--workers", 2, "--block-rows", 1)
    try:
        for count in (1, 20):
            job.wait_for_files(out, count)
            workers = job.processes(b"ray::MapWorker")
            assert workers
            os.kill(workers[0], signal.SIGKILL)
        job.end()
    finally:
        job.clear()
    check_rows(rows_of(out), expected, by_path)
    assert len(list(out.glob("*.parquet"))) == 181
    assert [file.name for file in out.glob(".*")] == []


@full
def test_killed_driver_goes_on_where_it_was(collection, tmp_path):
    model, images, expected = collection
    out = tmp_path / "out"
    arguments = (model, images, "--out", out, "--workers", 2, "--block-rows", 1)
    job = Job(*arguments)
    try:
        job.wait_for_files(out, 5)
        job.process.kill()
    finally:
        job.clear()
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    assert 5 <= len(before) < 181
    again = Job(*arguments)
    try:
        assert f"{len(before)} files were there before" in again.end()
    finally:
        again.clear()
    assert {file: file.stat().st_mtime_ns for file in before} == before
    check_rows(rows_of(out), expected, by_path)


@full
def test_parquet_keeps_columns_and_tells_where_rows_came_from(collection, tmp_path):
    model, images, expected = collection
    names = sorted(expected)
    (tmp_path / "in").mkdir()
    for part in range(2):
        mine = names[part::2]
        table = pa.table(
            {
                "image": [(images / name).read_bytes() for name in mine],
                "name": mine,
                "label": list(range(len(mine))),
            }
        )
        pq.write_table(table, tmp_path / f"in/{part}.parquet", row_group_size=30)
    out = tmp_path / "out"
    Job(model, tmp_path / "in", "--out", out, "--workers", 2).end()
    rows = rows_of(out)
    check_rows(rows, expected, lambda row: row["name"])
    assert set(rows[0]) == {"source_file", "source_row", "name", "label", PREDICTIONS, ERROR}
    for row in rows:
        part = int(row["source_file"].removesuffix(".parquet"))
        assert names[part::2][row["source_row"]] == row["name"]


@full
def test_predictor_in_a_pipeline_of_ray_data(collection, tmp_path):
    """As the docs show it, in a process that Ray is started in."""
    model, images, expected = collection
    program = f"""
import ray, ray.data, convship
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
ray.data.read_binary_files({str(images)!r}, include_paths=True).map_batches(
    convship.Predictor, fn_constructor_args=[{str(model)!r}], batch_format="pyarrow",
    compute=ray.data.ActorPoolStrategy(size=1),
).drop_columns(["bytes"]).write_parquet({str(tmp_path / "out")!r})
"""
    variables = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, capture_output=True, env=variables)
    rows = rows_of(tmp_path / "out")
    check_rows(rows, expected, lambda row: row["path"].split("/images/")[1])


class TestErrors:
    def test_folder_of_other_predictions_fails(self, collection, tmp_path):
        model, images, _ = collection
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        settings = {
            "model_sha256": digest,
            "input_sha256": list_blocks(images, 90)[1],
            "block_rows": 90,
            "column": "image",
            "top_k": 1,
        }
        for name, value in {"model_sha256": "0", "block_rows": 91, "top_k": 2}.items():
            (tmp_path / SETTINGS).write_text(json.dumps({**settings, name: value}))
            with pytest.raises(ValueError, match=f"predictions with another {name}; choose"):
                predict_collection(model, images, tmp_path, block_rows=90)

    def test_folder_of_other_files_fails(self, collection):
        model, images, _ = collection
        with pytest.raises(ValueError, match="holds other files; choose another folder"):
            predict_collection(model, images, images)

    def test_missing_model_fails(self, tmp_path):
        with pytest.raises(ModelFileNotFoundError, match=r"none\.pt: no such model file"):
            predict_collection("none.pt", tmp_path, tmp_path)

    def test_without_ray_says_how_to_get_it_fails(self, collection, tmp_path, monkeypatch):
        model, images, _ = collection
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'convship\[ray\]'"):
            predict_collection(model, images, tmp_path / "out")
        assert not (tmp_path / "out").exists()
