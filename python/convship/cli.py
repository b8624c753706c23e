"""The command line: arguments in, calls out. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from convship.batch_predict.cli import predict
from convship.bench.cli import bench_app
from convship.explain.cli import explain
from convship.profiling.cli import profile

# Nothing heavy up here: `convship --help` must be quick.

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a convnet in PyTorch, ship it as one file, run it with no Python.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at data sets.")
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.command()(profile)
app.command()(explain)
app.command()(predict)

_DATA_HELP = "digits, mnist, fashion-mnist, cifar10, fake or folder:PATH"


def _print_version(wanted: bool) -> None:
    if wanted:
        from convship._version import __version__

        print(f"convship {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print and exit"),
    ] = False,
) -> None:
    pass


@app.command()
def train(
    data: Annotated[str | None, typer.Option(help=_DATA_HELP)] = None,
    model: Annotated[str | None, typer.Option(help="lenet5, cifarnet or torchvision's")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run")] = None,
    recipe: Annotated[str | None, typer.Option(help="default or tutorial")] = None,
    resume: Annotated[bool, typer.Option(help="continue the run in --out")] = False,
    config: Annotated[Path | None, typer.Option(help="settings, a TOML file")] = None,
    weights: Annotated[str | None, typer.Option(help="torchvision's weights to start from")] = None,
    held_out: Annotated[float | None, typer.Option(help="to test on, without test/")] = None,
    size: Annotated[int | None, typer.Option(help="height and width of the input, pixels")] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd or adamw")] = None,
    lr: Annotated[float | None, typer.Option(help="highest learning rate")] = None,
    momentum: Annotated[float | None, typer.Option()] = None,
    weight_decay: Annotated[float | None, typer.Option()] = None,
    schedule: Annotated[str | None, typer.Option(help="constant, one-cycle, cosine, step")] = None,
    label_smoothing: Annotated[float | None, typer.Option()] = None,
    flip: Annotated[bool | None, typer.Option(help="mirror images at random")] = None,
    shift: Annotated[int | None, typer.Option(help="largest random shift, pixels")] = None,
    rotate: Annotated[float | None, typer.Option(help="largest random rotation, degrees")] = None,
    scale: Annotated[float | None, typer.Option(help="largest random change of size")] = None,
    start_size: Annotated[float | None, typer.Option(help="of --size, to grow from")] = None,
    early_stopping: Annotated[int | None, typer.Option(help="epochs to wait; 0: never")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    precision: Annotated[str | None, typer.Option(help="auto, 32, bf16-mixed, 16-mixed")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1, max=4096)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
    workers: Annotated[int | None, typer.Option(help="processes that decode images")] = None,
    cache: Annotated[bool | None, typer.Option(help="keep decoded images in memory")] = None,
    tensorboard: Annotated[bool | None, typer.Option(help="log for TensorBoard too")] = None,
) -> None:
    """Train a network on a data set."""
    overrides = {**locals(), "size": (size, size) if size is not None else None}
    del overrides["config"], overrides["resume"]
    from convship.config import read_config
    from convship.loop import rank
    from convship.train import train as train_run

    if config is None and resume and out is not None and (out / "config.toml").exists():
        config = out / "config.toml"
    run = train_run(read_config(config, overrides), resume=resume)
    if rank() > 0:  # under torchrun, one process speaks
        return
    summary = run.summary
    print(
        f"{run.path}: test accuracy {100 * summary['test_accuracy']:.2f} % "
        f"(epoch {summary['best_epoch']} of {summary['epochs']}; "
        f"last {100 * summary['last_test_accuracy']:.2f} %), "
        f"trained in {summary['train_seconds']:.1f} s"
    )


@app.command(name="eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="folder of the run")],
    data: Annotated[str | None, typer.Option(help=_DATA_HELP + "; default: the run's")] = None,
    checkpoint: Annotated[str, typer.Option(help="best or last")] = "best",
    confusion: Annotated[Path | None, typer.Option(help="picture of the confusion matrix")] = None,
    json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1, max=4096)] = None,
    workers: Annotated[int | None, typer.Option(help="processes that decode images")] = None,
) -> None:
    """Measure a trained network: top-1, top-5, per class, confusion matrix."""
    from convship.evaluate import evaluate_run
    from convship.runs import load_run

    result = evaluate_run(load_run(run, checkpoint), data, threads=threads, workers=workers)
    picture = confusion or run / "confusion.png"
    result.plot(picture)
    print(result.to_json() if json else result.table())
    print(f"confusion matrix: {picture}", file=sys.stderr)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="folder of the run")],
    out: Annotated[Path, typer.Option(help="the file to write")],
    checkpoint: Annotated[str, typer.Option(help="best or last")] = "best",
    format: Annotated[str, typer.Option(help="pt (TorchScript) or pt2 (native code)")] = "pt",
    cpu: Annotated[str | None, typer.Option(help="of a pt2: x86-64-v3 or x86-64-v4")] = None,
    precision: Annotated[
        str, typer.Option(help="what layers multiply: float32, bfloat16 or int8")
    ] = "float32",
    max_accuracy_drop: Annotated[
        float, typer.Option(help="refuse when top-1 falls by more than this share of the images")
    ] = 0.01,
) -> None:
    """Ship a trained network as one file that runs without Python."""
    from convship.bundle import precision_line
    from convship.export import export_run

    manifest = export_run(
        run,
        out,
        checkpoint,  # type: ignore[arg-type]
        format=format,  # type: ignore[arg-type]
        cpu=cpu,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        max_accuracy_drop=max_accuracy_drop,
    )
    print(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, {len(manifest.labels)} classes, "
        f"{manifest.goldens} goldens"
    )
    if manifest.precision != "float32":
        print(precision_line(manifest))


@app.command()
def sign(
    model: Annotated[Path, typer.Argument(help="a shipped file")],
    key: Annotated[Path, typer.Option(help="PEM of an Ed25519 private key, made by openssl")],
    out: Annotated[Path | None, typer.Option(help="the file to write; default: MODEL")] = None,
) -> None:
    """Sign a file, so that others can tell whose it is; see SECURITY.md."""
    from convship.signing import sign as sign_file

    sign_file(model, key, out=out)
    print(f"{out or model}: signed")


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="a shipped file")],
    public_key: Annotated[
        Path | None, typer.Option(help="PEM; refuse what it did not sign")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Print the manifest of a file; nothing in it is executed."""
    from convship.bundle import describe
    from convship.bundle import inspect as read

    manifest = read(model, public_key=public_key)
    print(manifest.model_dump_json() if json else describe(manifest))


@app.command()
def verify(
    model: Annotated[Path, typer.Argument(help="a shipped file")],
    images: Annotated[list[Path] | None, typer.Argument(help="images and folders of them")] = None,
    backend: Annotated[str, typer.Option(help="convship or libtorch")] = "convship",
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1, max=4096)] = None,
    json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> int:
    """Compare torch, convship in Python and the native program, stage by stage."""
    from convship.verify import as_table, verify_model

    report = verify_model(model, images or (), backend=backend, threads=threads)  # type: ignore[arg-type]
    print(report.to_json() if json else as_table(report))
    return 0 if report.passed else 1


@app.command()
def sdk(
    cmake_dir: Annotated[bool, typer.Option("--cmake-dir", help="for -Dconvship_DIR=")] = False,
    pkg_config_dir: Annotated[
        bool, typer.Option("--pkg-config-dir", help="for PKG_CONFIG_PATH=")
    ] = False,
) -> None:
    """Print where the headers and libraries for native programs are."""
    if cmake_dir and pkg_config_dir:
        raise typer.BadParameter("--cmake-dir and --pkg-config-dir exclude each other")
    package = Path(__file__).parent
    if cmake_dir:
        package /= "lib/cmake/convship"
    elif pkg_config_dir:
        package /= "lib/pkgconfig"
    print(package)


@data_app.command()
def show(
    data: Annotated[str, typer.Option(help=_DATA_HELP)] = "digits",
    out: Annotated[Path, typer.Option(help="the picture, PNG")] = Path("strip.png"),
    count: Annotated[int, typer.Option(help="number of images", min=1)] = 16,
) -> None:
    """Draw a strip of labelled sample images."""
    from convship.data import load_data
    from convship.plots import plot_samples

    plot_samples(load_data(data), out, count)
    print(out)


_INTERRUPTED = 130  # what shells give for SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 1 a check found a difference; 2 wrong usage; 3 bad model file; 4 bad image;
    5 the machine lacks something. Every error is one line on stderr.
    """
    try:
        result: Any = app(args=arguments, standalone_mode=False, prog_name="convship")
    except (KeyboardInterrupt, typer.Abort):
        result = _INTERRUPTED
    except Exception as error:  # the one place that turns errors into lines and codes
        code = exit_code(error)
        if code is None:
            raise
        return _report(_message(error), code)
    if result == _INTERRUPTED:  # typer returns it too
        return _report("interrupted; a training goes on with --resume", _INTERRUPTED)
    return int(result or 0)


def exit_code(error: Exception) -> int | None:
    """Return the exit code of an error that users can cause, None for a defect of ours."""
    from convship.errors import ImageError, ModelFileError

    if isinstance(error, ModelFileError):
        return 3
    if isinstance(error, ImageError):
        return 4
    # typer's own errors have exit codes; they have no common public class.
    if isinstance(error, FileNotFoundError | ValueError) or hasattr(error, "format_message"):
        return 2
    if isinstance(error, OSError | ModuleNotFoundError | MemoryError):
        return 5
    return None


def _message(error: Exception) -> str:
    if hasattr(error, "format_message"):
        return str(error.format_message())
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _report(message: str, code: int) -> int:
    line = " ".join(message.split())
    if line:
        print(f"convship: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
