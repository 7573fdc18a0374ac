"""Writes what is shown of the results in benchmarks/results: tables, the chart, `measured.json`.

    python benchmarks/readme.py

The tables are those of both READMEs; `mnistjax recipes` reads `measured.json`.
"""

import collections
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import mnistjax

ROOT = Path(__file__).resolve().parent.parent


def summarize_accuracy(path: Path) -> dict[str, dict]:
    """Summarizes the accuracy of each recipe over its seeds, from the JSON lines of `path`.

    `mnistjax recipes` shows the result, which `mnistjax.cli.listing.read_measured` describes.
    """
    runs = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        run = json.loads(line)
        runs[run["recipe"]].append(run)
    return {name: _summarize(runs[name]) for name in mnistjax.runs.RECIPES if name in runs}


def _summarize(runs: list[dict]) -> dict:
    summary = {key: runs[-1][key] for key in ("parameters", "epochs")} | {"seeds": len(runs)}
    for key in ("validation_accuracy", "test_accuracy"):
        summary[key], summary[f"{key}_sd"] = _mean_and_sd(runs, key)
    summary["train_seconds"] = statistics.median(run["train_seconds"] for run in runs)
    return summary | {key: runs[-1][key] for key in ("device", "versions")}


def _mean_and_sd(runs: list[dict], key: str) -> tuple[float | None, float | None]:
    values = [run[key] for run in runs if run[key] is not None]
    mean = statistics.mean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def _spread(mean: float | None, deviation: float | None) -> str:
    shown = "" if mean is None else f"{100 * mean:.2f}"
    return shown if deviation is None else f"{shown} ± {100 * deviation:.2f}"


def accuracy_table(measured: dict[str, dict]) -> str:
    """Returns the Markdown table of what `summarize_accuracy` returned, one row per recipe."""
    lines = []
    for name, found in measured.items():
        recipe = mnistjax.runs.RECIPES[name]
        line = [f"`{name}`", recipe.summary, f"{found['parameters']:,}", f"{found['epochs']:.3g}"]
        line.append(str(found["seeds"]))
        for key in ("validation_accuracy", "test_accuracy"):
            line.append(_spread(found[key], found[f"{key}_sd"]))
        lines.append([*line, f"{recipe.target:g} {recipe.measured_on}"])
    titles = ["recipe", "network", "parameters", "epochs", "seeds", "validation", "test", "target"]
    return _markdown(titles, lines, left=2)


def read_lines(folder: Path, benchmark: str) -> list[dict]:
    """Returns the JSON lines of all files of a benchmark, for example `peers-gpu.jsonl`."""
    files = sorted(folder.glob(f"{benchmark}*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def throughput_table(rows: Iterable[dict]) -> str:
    """Returns the Markdown table of `throughput.py`, per recipe, device, dtype and batch size."""
    groups: dict[tuple, dict] = {}
    keys = ("recipe", "device", "devices", "dtype", "batch_size_per_device")
    for row in rows:
        cells = groups.setdefault(tuple(row[key] for key in keys), {})
        cells[row["phase"], row["feed"]] = row
    titles = ("training images/s", "fed from the host", "of matmul peak", "inference images/s")
    lines = []
    for (recipe, device, devices, dtype, batch), measured in groups.items():
        training = measured.get(("training", "device"))
        rates = [
            _rate(measured.get(cell))
            for cell in (("training", "device"), ("training", "host"), ("inference", "device"))
        ]
        share = f"{training['share_of_peak']:.0%}" if training else ""
        where = device if devices == 1 else f"{devices} x {device}"
        lines.append([f"`{recipe}`", where, dtype, str(batch), *rates[:2], share, rates[2]])
    return _markdown(["recipe", "device", "dtype", "batch", *titles], lines, left=3)


def _rate(row: dict | None) -> str:
    return f"{row['images_per_second_per_device']:,.0f}" if row else ""


# Rows that agree in these differ only in the framework.
PEER_SETTING = ("network", "platform", "dtype", "batch_size", "threads")


def peers_table(rows: Iterable[dict]) -> str:
    """Returns the Markdown table of `peers.py`, one row per network and peer."""
    lines = []
    for (network, *setting, peer), pair in _grouped(rows, *PEER_SETTING, "peer"):
        training, inference = sorted(pair, key=lambda row: row["phase"], reverse=True)
        line = [f"`{network}`", *map(str, setting), peer, f"{training['images_per_second']:,.0f}"]
        line += [_times(training), f"{inference['images_per_second']:,.0f}", _times(inference)]
        line += [f"{training['peak_memory_bytes'] / 2**20:,.0f}"]
        lines.append([*line, f"{100 * training['test_accuracy']:.2f}"])
    titles = [
        "network",
        "on",
        "dtype",
        "batch",
        "threads",
        "framework",
        "training images/s",
        "mnistjax is faster by",
    ]
    titles += ["inference images/s", "faster by", "peak MiB", "test accuracy %"]
    return _markdown(titles, lines, left=6)


def peers_summary_table(rows: Iterable[dict]) -> str:
    """Returns the Markdown table that compares this library with the fastest peer, per setting.

    Of the numbers of threads, only the largest is shown; the table of `peers_table` has all.
    """
    rows = list(rows)
    most = max((row["threads"] for row in rows), default=0)
    rows = [row for row in rows if row["threads"] == most]
    lines = []
    for (network, *setting), runs in sorted(_grouped(rows, *PEER_SETTING)):
        line = [f"`{network}`", *map(str, setting)]
        for phase in ("training", "inference"):
            cells = _against_the_fastest([row for row in runs if row["phase"] == phase])
            line += cells if phase == "training" else [cells[0], *cells[2:]]
        memory = {
            row["peer"]: row["peak_memory_bytes"] / 2**20
            for row in runs
            if row["phase"] == "training"
        }
        line += [f"{memory[peer]:,.0f}" if peer in memory else "" for peer in _MEMORY]
        lines.append(line)
    titles = ["network", "on", "dtype", "batch", "threads", "training images/s", "PyTorch's"]
    titles += ["fastest other", "faster than that by", "inference images/s"]
    titles += ["fastest other", "faster by", "peak MiB", "PyTorch's"]
    return _markdown(titles, lines, left=5)


def peers_again_table(rows: Iterable[dict], again: Iterable[dict]) -> str:
    """Returns the Markdown table of what two measurements found, per network and batch size.

    For each number of threads: how much faster than the fastest peer training was in both.
    """
    found: dict[tuple, dict] = {}
    for number, measured in enumerate((rows, again)):
        training = [row for row in measured if row["phase"] == "training"]
        for (network, *_, batch, threads), runs in _grouped(training, *PEER_SETTING):
            found.setdefault((network, batch), {})[threads, number] = _against_the_fastest(runs)[-1]
    columns = sorted(
        {key for cells in found.values() for key in cells}, key=lambda key: (-key[0], key[1])
    )
    titles = [
        f"{threads} thread{'s' if threads > 1 else ''}, {('first', 'second')[number]}"
        for threads, number in columns
    ]
    lines = [
        [f"`{network}`", str(batch), *(cells.get(key, "") for key in columns)]
        for (network, batch), cells in sorted(found.items())
    ]
    return _markdown(["network", "batch", *titles], lines, left=1)


_MEMORY = ("mnistjax", "pytorch-eager")


def _against_the_fastest(rows: list[dict]) -> list[str]:
    """Returns images/s here and in PyTorch, the fastest other with its images/s, and the ratio."""
    ours = next(row for row in rows if row["peer"] == row["reference"])
    others = [row for row in rows if row is not ours]
    # The fastest peer is the one with the smallest ratio, as rounds are compared one by one.
    fastest = min(others, key=lambda row: row["reference_is_faster_by"])
    pytorch = [_peer_rate(row) for row in others if row["peer"] == "pytorch-eager"]
    name = f"{fastest['peer']} {_peer_rate(fastest)}"
    return [_peer_rate(ours), *(pytorch or [""]), name, _times(fastest)]


def _peer_rate(row: dict) -> str:
    return f"{row['images_per_second']:,.0f}"


def _times(row: dict) -> str:
    ratio = row["reference_is_faster_by"]
    return "" if ratio is None or row["peer"] == row["reference"] else f"{ratio:.2f}"


def time_to_accuracy_table(rows: Iterable[dict]) -> str:
    """Returns the Markdown table of `time_to_accuracy.py`, one row per recipe and device."""
    lines = []
    for (recipe, device), runs in _grouped(rows, "recipe", "device"):
        cold, warm = ([run for run in runs if run["cache"] == cache] for cache in ("cold", "warm"))
        seconds = [_median(runs, "train_seconds"), _median(runs, "evaluation_seconds")]
        for name in ("compile_seconds", "process_seconds"):
            seconds += [_median(cold, name), _median(warm, name)]
        accuracy = _spread(*_mean_and_sd(runs, "test_accuracy"))
        lines.append([f"`{recipe}`", device, str(len(runs)), accuracy, *seconds])
    titles = ["recipe", "device", "seeds", "test accuracy %", "training s", "evaluation s"]
    titles += ["compile s, cold", "warm", "from process start s, cold", "warm"]
    return _markdown(titles, lines, left=2)


def startup_table(rows: Iterable[dict]) -> str:
    """Returns the Markdown table of `startup.py`, one row per recipe, device and cache state."""
    stages = ("interpreter", "import", "backend", "data", "compile", "first_step", "total")
    lines = [
        [f"`{recipe}`", device, cache, *(_median(runs, f"{stage}_seconds") for stage in stages)]
        for (recipe, device, cache), runs in _grouped(rows, "recipe", "device", "cache")
    ]
    titles = [f"{stage.replace('_', ' ')} s" for stage in stages]
    return _markdown(["recipe", "device", "caches", *titles], lines, left=3)


def serving_table(rows: Iterable[dict]) -> str:
    """Returns the Markdown table of `serving.py`, one row per number of clients and server."""
    lines = []
    for row in rows:
        line = [f"`{row['recipe']}`", row["device"], str(row["threads"]), row["request"]]
        line += [row["server"], str(row["clients"]), f"{row['requests_per_second']:,.0f}"]
        line += [f"{row[name]:.2f}" for name in ("reference_is_faster_by", "p50_ms", "p99_ms")]
        lines.append(line)
    titles = ["network", "device", "threads", "request", "server", "clients", "requests/s"]
    titles += ["mnistjax is faster by", "median ms", "99th percentile ms"]
    return _markdown(titles, lines, left=5)


def _grouped(rows: Iterable[dict], *keys: str) -> Iterable[tuple[tuple, list[dict]]]:
    groups = collections.defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups.items()


def _median(runs: list[dict], name: str) -> str:
    return f"{statistics.median(run[name] for run in runs):.2f}" if runs else ""


def _markdown(titles: Sequence[str], lines: Iterable[Sequence[str]], *, left: int) -> str:
    """Returns a table whose first `left` columns are left-aligned and the others right-aligned."""
    rules = ["---"] * left + ["---:"] * (len(titles) - left)
    heading = ["| " + " | ".join(titles) + " |", "|" + "|".join(rules) + "|"]
    return "\n".join([*heading, *("| " + " | ".join(line) + " |" for line in lines)])


def draw_speed_chart(rows: Iterable[dict], path: Path) -> None:
    """Draws the training speed of every peer, one panel per network, as an SVG file.

    Args:
        rows: the lines of `peers.py`.
        path: the file; the same rows give the same bytes.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    training = [row for row in rows if row["phase"] == "training"]
    panels = list(_grouped(training, *PEER_SETTING))
    height = 0.8 + 0.3 * max(len(runs) for _, runs in panels)
    figure = Figure(figsize=(8, height * len(panels)), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, ((network, platform, dtype, batch, _), unsorted) in zip(
        figure.subplots(len(panels), squeeze=False).flat, panels, strict=True
    ):
        runs = sorted(unsorted, key=lambda row: row["images_per_second"])
        rates = [row["images_per_second"] for row in runs]
        colors = ["C1" if row["peer"] == row["reference"] else "C0" for row in runs]
        below = [row["images_per_second"] - row["images_per_second_min"] for row in runs]
        above = [row["images_per_second_max"] - row["images_per_second"] for row in runs]
        bars = axes.barh([row["peer"] for row in runs], rates, color=colors, xerr=[below, above])
        axes.bar_label(bars, [f" {rate:,.0f}" for rate in rates])
        axes.margins(x=0.15)
        axes.set_title(f"{network} on {platform}, {dtype}, batch {batch}")
        axes.set_xlabel("training images/s: median, lowest to highest round")
    with matplotlib.rc_context({"svg.hashsalt": "mnistjax", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def accuracies_by_recipe(rows: Iterable[dict]) -> dict[str, list[float]]:
    """Returns the test accuracies of all seeds of each recipe, from the lines of `accuracy.py`."""
    groups = _grouped(rows, "recipe")
    return {recipe: [run["test_accuracy"] for run in runs] for (recipe,), runs in groups}


def replace_section(text: str, name: str, content: str) -> str:
    """Replaces the part of `text` between its comments `name: begin` and `name: end`."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{content}\n\n{end}{after}"


# For each section: the benchmark whose results it shows, and the function that makes its table.
SPEED_TABLES = {
    "throughput": ("throughput", throughput_table),
    "time_to_accuracy": ("time_to_accuracy", time_to_accuracy_table),
    "peers_summary": ("peers", peers_summary_table),
    "peers": ("peers", peers_table),
    "startup": ("startup", startup_table),
    "serving": ("serving", serving_table),
}


def regenerate(text: str) -> str:
    """Returns the text of a README with all of its tables regenerated."""
    for name, (benchmark, make_table) in SPEED_TABLES.items():
        if f"<!-- {name}: begin -->" in text:
            text = replace_section(text, name, make_table(read_lines(RESULTS, benchmark)))
    if "<!-- peers_again: begin -->" in text:
        both = read_lines(RESULTS, "peers"), read_lines(RESULTS / "second", "peers")
        text = replace_section(text, "peers_again", peers_again_table(*both))
    if "<!-- accuracy: begin -->" in text:
        measured = summarize_accuracy(RESULTS / "accuracy.jsonl")
        text = replace_section(text, "accuracy", accuracy_table(measured))
    return text


RESULTS = ROOT / "benchmarks" / "results"
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
MEASURED = ROOT / "mnistjax" / "runs" / "measured.json"  # Part of the package.

if __name__ == "__main__":
    measured = summarize_accuracy(RESULTS / "accuracy.jsonl")
    MEASURED.write_text(json.dumps(measured, indent=2) + "\n")
    for readme in READMES:
        readme.write_text(regenerate(readme.read_text()))
    if peers := read_lines(RESULTS, "peers"):
        # One batch size, on all cores: with all settings it would be long.
        most = max(row["threads"] for row in peers)
        peers = [row for row in peers if (row["batch_size"], row["threads"]) == (128, most)]
        draw_speed_chart(peers, RESULTS / "peers.svg")
    if seeds := accuracies_by_recipe(read_lines(RESULTS, "seeds")):
        figure = mnistjax.plots.seeds(seeds)
        (RESULTS / "seeds.png").write_bytes(mnistjax.plots.render_png(figure))
