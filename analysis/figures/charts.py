"""Figures for a paper: table in, matplotlib figure out; `analysis.figures.drawing` makes the file. The page and the command `figure` draw them here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.behaviour.changes import INTERVENTIONS, WHOLE, Group, row_label
from soft_prompt_explorer.analysis.behaviour.difference_lens import LEVEL
from soft_prompt_explorer.analysis.behaviour.translation import CHOSEN, CONTROLS, MIXED, OTHERS, told_in_a_figure
from soft_prompt_explorer.analysis.behaviour.translation_candidates import CONTROL
from soft_prompt_explorer.analysis.figures.colours import BLUE, BLUE_LIGHT, GREEN, GREY, ORANGE, PURPLE, VERMILION
from soft_prompt_explorer.analysis.figures.drawing import ROW, WIDTH, clear_frame, label_rows, sheet, word
from soft_prompt_explorer.analysis.prompts.projection import VocabularyMap
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = 12  # of the lens
A_LAYER = 5  # of the lens, layer by layer
LABELLED = 100  # tokens on a map; beyond, their labels would hide one another
COLUMNS = 3  # of panels
PANELS = 12  # beyond, the modules share one
_AROUND = 16.0  # mm for what stands above and below the rows
_VERDICTS = {  # colour and shape, as on the page
    "moved along a word": (GREEN, "*", True),
    "echo": (ORANGE, "s", True),
    "near a word": (BLUE, "D", True),
    "unreadable": (GREY, "x", True),
    "never trained": (GREY, "o", False),
}
_WAYS = ((GREY, "o"), (ORANGE, "s"), (PURPLE, "p"), (BLUE, "D"), (GREEN, "P"), (VERMILION, "h"))
_TEXTS = {CHOSEN: (ORANGE, "*", True), OTHERS: (BLUE, "o", True), MIXED: (GREEN, "D", True), CONTROLS: (GREY, "x", True)}
_RUNS = ((BLUE, "-"), (VERMILION, "--"), (GREEN, ":"), (PURPLE, "-."), (ORANGE, (0, (8, 3))), (BLUE_LIGHT, (0, (8, 3, 1, 3))))
_PALE_BLUES, _BLUE_WHITE_ORANGE = ("#F4F8FC", "#56B4E9"), ("#56B4E9", "#FFFFFF", "#E69F00")  # dark text stays readable on all of it
_GROUPS: dict[Group, tuple[str, str, bool]] = {
    "the whole prompt changed": (BLUE, "o", True),
    "the task direction": (GREEN, "D", True),
    "its words' part, and the rest": (BLUE_LIGHT, "v", True),
    "principal directions": (PURPLE, "s", True),
    "random directions of the same size": (GREY, "x", True),
    "the path from start to end": (ORANGE, "^", True),
    "one token": (VERMILION, "o", False),
}


def verdicts(table: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """A row a virtual token: its nearest word, the score of that, and the verdict by colour and shape; what it started from and learned, where that is known.

    Parameters
    ----------
    table : of `analysis.prompts.verdicts.readings`.
    width : in mm.
    """
    several = len(set(table["prompt"])) > 1
    labels = [f"{f'{row.prompt} ' if several else ''}{row.position}  {word(row.nearest_token)}" for row in table.itertuples()]
    with sheet(width, _AROUND + ROW * len(table)) as figure:
        axes = figure.add_subplot()
        label_rows(axes, labels)
        plain = table["verdict"].map(plain_verdict)
        for verdict, marks in _VERDICTS.items():
            rows = np.flatnonzero(plain == verdict)
            if len(rows):
                axes.scatter(table["score"].iloc[rows], rows, label=verdict, **_style(marks))
        for i, (at, start) in enumerate(zip(table["score"], table["initial_token"], strict=True)):
            if pd.notna(start):
                axes.annotate(f"from {word(start)}", (at, i), xytext=(6, 0), textcoords="offset points", va="center", fontsize=5.5)
        axes.set_xlim(0, 1.3 if table["initial_token"].notna().any() else 1.05)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
        axes.set_xlabel("centred cosine with the nearest word")
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


def interventions(table: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """The change of the score that each intervention makes, with its 95 % interval, from the whole prompt at 0; single tokens are left out.

    Parameters
    ----------
    table : of `analysis.behaviour.asked.behaviour`.
    width : in mm.
    """
    table = table[(table["intervention"] != WHOLE) & table["position"].isna()].reset_index(drop=True)
    with sheet(width, _AROUND + 22 + ROW * len(table)) as figure:
        axes = figure.add_subplot()
        label_rows(axes, [row_label(row) for row in table.itertuples()])
        for group, marks in _GROUPS.items():
            rows = table[table["intervention"].isin([each.name for each in INTERVENTIONS.values() if each.group == group])]
            if len(rows):
                axes.hlines(rows.index, rows["score_change_low"], rows["score_change_high"], colors=marks[0], linewidth=0.9)
                axes.scatter(rows["score_change"], rows.index, label=group, **_style(marks))
        axes.axvline(0, color=GREY, linewidth=0.7, linestyle=":")
        axes.set_xlabel(f"change of {table['measure'].iloc[0]}\nfrom the whole prompt, n = {table['n'].iloc[0]:,}")
        figure.legend(loc="outside upper left", ncols=1 if width < 120 else 2, frameon=False)
    return figure


def spectrum(table: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """The singular values of every module's update, a panel a projection, darker the nearer the module is to the input.

    Parameters
    ----------
    table : of `analysis.loras.ranks.long_form`, zeros left out.
    width : in mm.
    """
    names = list(dict.fromkeys(table["projection"]))
    panels = [(name, table[table["projection"] == name]) for name in names] if len(names) <= PANELS else [("all modules", table)]
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with sheet(width, 8 + rows * min(55.0, 12 + 0.75 * width / columns)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, (name, part) in zip(grid.flat, panels, strict=False):
            _spectra(axes, part)
            axes.set_title(name, fontsize=7)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("rank", fontsize=7)
        figure.supylabel("singular value", fontsize=7)
    return figure


def _spectra(axes: Axes, table: pd.DataFrame) -> None:
    import matplotlib.ticker

    modules = list(table.groupby("module", sort=False))
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 0.95, len(modules)))
    for (_, rows), shade in zip(modules, shades, strict=True):
        axes.plot(rows["rank"], rows["value"], color=shade, linewidth=0.8, marker="." if len(rows) == 1 else None)
    axes.set_yscale("log")
    plain = "{x:g}"  # a power would be mathematics, which text is not taken for here
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(plain if table["value"].max() < 10 * table["value"].min() else matplotlib.ticker.NullFormatter())
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, integer=True, min_n_ticks=1))


def token_map(on: VocabularyMap, landmarks: pd.DataFrame, tokens: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """Virtual tokens on the map of the vocabulary, each with its number, after a letter for its prompt where there are several; the words are an image of points, all else is
    lines and text.

    Parameters
    ----------
    on, landmarks : of `analysis.prompts.projection.vocabulary_map`, in two dimensions, and `landmarks`.
    tokens : prompt, x, y, position, verdict.
    width : in mm.
    """
    prompts = list(dict.fromkeys(tokens["prompt"]))
    labelled = len(tokens) <= LABELLED
    letters = {name: chr(ord("a") + i) for i, name in enumerate(prompts)} if labelled and 1 < len(prompts) <= 26 else {}
    across, down = np.ptp(on.places, axis=0)
    with sheet(width, 12 + ROW * -(-len(letters) // 2) + width * min(max(down / across, 0.4), 1.2)) as figure:
        axes = figure.add_subplot()
        clear_frame(axes)
        axes.set_aspect("equal", adjustable="datalim")
        axes.scatter(on.places[:, 0], on.places[:, 1], s=0.3, color=GREY, alpha=0.3, linewidths=0, rasterized=True)
        for row in landmarks.itertuples():
            axes.text(row.x, row.y, word(row.token.strip()), fontsize=4.5, color="#444444", ha="center", va="center", clip_on=True)
        for verdict, marks in _VERDICTS.items():
            rows = tokens[tokens["verdict"].map(plain_verdict) == verdict]
            if len(rows):
                axes.scatter(rows["x"], rows["y"], label=verdict, zorder=3, **_style(marks))
        for row in tokens.itertuples() if labelled else ():
            axes.annotate(
                f"{letters.get(row.prompt, '')}{row.position}",
                (row.x, row.y),
                xytext=(3, 2),
                textcoords="offset points",
                fontsize=6,
                color=VERMILION,
            )
        axes.set_title(
            f"{on.projection.upper()} of {len(on.ids):,} words, trustworthiness {on.trustworthiness:.2f} (k = 15)", fontsize=6, loc="left"
        )
        for name, letter in letters.items():
            axes.plot([], [], linestyle="none", label=f"{letter}  {name}")
        figure.legend(loc="outside lower left", ncols=2 if letters else 3, frameon=False)
    return figure


def lens(table: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """The words that an adapter pushes the model towards, after the last layer that is in the table: bars as long as z; ★ and blue mark what is beyond chance; a diamond is the twin.

    Parameters
    ----------
    table : rows of `analysis.behaviour.difference_lens.lens` of one adapter.
    width : in mm.
    """
    words = table[table["layer"] == table["layer"].max()].sort_values("rank").head(WORDS)
    beyond = (words["q"] < LEVEL).to_numpy()
    with sheet(width, _AROUND - 4 + ROW * len(words)) as figure:
        axes = figure.add_subplot()
        label_rows(axes, [f"{'★ ' if told else ''}{word(token)}" for token, told in zip(words["token"], beyond, strict=True)])
        axes.barh(range(len(words)), words["z"], height=0.7, color=np.where(beyond, BLUE, GREY).tolist())
        if words["twin_z"].notna().all():
            axes.scatter(
                words["twin_z"],
                range(len(words)),
                marker="D",
                s=12,
                facecolors="none",
                edgecolors=ORANGE,
                label="its twin, trained on shuffled answers",
            )
            axes.legend(loc="lower right", fontsize=5, frameon=False)
        axes.set_xlabel("z, beside adapters that know nothing")
    return figure


def lens_by_layer(table: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """The strongest words of every layer, a layer a row; the bluer, the higher their z.

    Parameters
    ----------
    table : rows of `analysis.behaviour.difference_lens.lens` of one adapter.
    width : in mm.
    """
    first = table[table["rank"] < A_LAYER]
    z, words = (first.pivot(index="layer", columns="rank", values=name) for name in ("z", "token"))
    with sheet(width, _AROUND + ROW * len(z)) as figure:
        axes = figure.add_subplot()
        drawn = axes.imshow(z.to_numpy(np.float64), cmap=_scale(_PALE_BLUES), aspect="auto")
        for (i, j), token in np.ndenumerate(words.to_numpy()):
            if pd.notna(token):
                axes.text(j, i, word(token), ha="center", va="center", fontsize=4.5, clip_on=True)
        label_rows(axes, [f"layer {layer}" for layer in z.index])
        axes.set_xticks(range(z.shape[1]), [f"rank {rank}" for rank in z.columns])
        figure.colorbar(drawn, ax=axes, label="z", fraction=0.04)
    return figure


def direction(table: pd.DataFrame, tested: set[int], *, width: float = WIDTH) -> Figure:
    """The words that tokens moved towards together, the nearest on top; ★ and green mark the tested ones.

    Parameters
    ----------
    table : of `analysis.prompts.directions.direction`.
    tested : token ids.
    width : in mm.
    """
    own = table["token_id"].isin(tested).to_numpy()
    labels = [f"{'★ ' if yes else ''}{rank:,}  {word(token)}" for yes, rank, token in zip(own, table["rank"], table["token"], strict=True)]
    with sheet(width, _AROUND - 4 + ROW * len(table)) as figure:
        axes = figure.add_subplot()
        label_rows(axes, labels)
        axes.barh(range(len(table)), table["score"], height=0.7, color=np.where(own, GREEN, BLUE_LIGHT).tolist())
        axes.set_xlabel("cosine with the shared direction")
    return figure


def shares(table: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """The share of what an adapter changes that each text in its place recovers, with 95 % intervals; the dotted line is where those of the controls end.

    Parameters
    ----------
    table : of `analysis.behaviour.translation.translate`.
    width : in mm.
    """
    told = told_in_a_figure(table)
    low = max(told["share_low"].min(), -1.0)
    with sheet(width, _AROUND + 6 + ROW * len(told)) as figure:
        axes = figure.add_subplot()
        label_rows(axes, told["candidate"].tolist())
        for kind, marks in _TEXTS.items():
            rows = np.flatnonzero(told["kind"] == kind)
            if len(rows):
                of_kind = told.iloc[rows]
                axes.hlines(rows, of_kind["share_low"].clip(lower=low), of_kind["share_high"], colors=marks[0], linewidth=0.9)
                axes.scatter(of_kind["share"].clip(lower=low), rows, label=kind, **_style(marks))
        ends = table.loc[table["candidate"].str.startswith(CONTROL), "share_high"]
        for at in {0.0, *([ends.max()] if len(ends) else [])}:
            axes.axvline(at, color=GREY, linewidth=0.7, linestyle=":" if at else "-")
        axes.set_xlabel(f"share that the text recovers, n = {told['n'].iloc[0]:,}")
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure


def similarity(square: pd.DataFrame, links: np.ndarray, measure: str, level: float | None = None, *, width: float = 2 * WIDTH) -> Figure:
    """Every prompt against every other, alike ones side by side, with the tree that joins them.

    Parameters
    ----------
    square : of `analysis.prompts.likeness.matrix`.
    links : of `analysis.prompts.likeness.tree`, its leaves in the order of `square`.
    level : the value that tells, where there is one: white, with blue below it and orange above.
    width : in mm.
    """
    from matplotlib.colors import TwoSlopeNorm
    from scipy.cluster.hierarchy import dendrogram

    drawn_tree = dendrogram(links, no_plot=True)
    square = square.iloc[drawn_tree["leaves"], drawn_tree["leaves"]]
    values = square.to_numpy(np.float64)
    with sheet(width, 40 + max(width / 2, ROW * len(square))) as figure:
        axes, beside = figure.subplots(1, 2, width_ratios=[4, 1], sharey=True)
        least, most = np.nanmin(values), np.nanmax(values)
        norm = None if level is None else TwoSlopeNorm(level, min(least, level - 1e-6), max(most, level + 1e-6))
        drawn = axes.imshow(values, cmap=_scale(_PALE_BLUES if level is None else _BLUE_WHITE_ORANGE), norm=norm, aspect="auto")
        for (i, j), value in np.ndenumerate(values if len(square) <= 20 else np.empty((0, 0))):
            if np.isfinite(value):
                axes.text(j, i, f"{value:.1f}" if measure == "z" else f"{value:.2f}", ha="center", va="center", fontsize=5)
        label_rows(axes, list(square.index))
        axes.set_xticks(range(len(square)), list(square.columns), rotation=40, ha="right")
        for across, up in zip(drawn_tree["dcoord"], drawn_tree["icoord"], strict=True):  # scipy's leaves stand at 5, 15, 25, …
            beside.plot(across, (np.array(up) - 5) / 10, color=GREY, linewidth=0.8)
        beside.spines["left"].set_visible(False)
        beside.tick_params(axis="y", length=0, labelleft=False)
        beside.set_xlabel("1 − matched cosine")
        figure.colorbar(drawn, ax=axes, label=measure.replace("_", " "), location="top", fraction=0.04)
    return figure


def losses(table: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """The loss of each step of the first run as dots, and of every run the mean of the last ten as a line.

    Parameters
    ----------
    table : run, step, loss, a row a step.
    width : in mm.
    """
    with sheet(width, 0.65 * width) as figure:
        axes = figure.add_subplot()
        for (name, rows), (colour, dash) in zip(table.groupby("run", sort=False), _RUNS, strict=False):
            if name == table["run"].iloc[0]:
                axes.scatter(rows["step"], rows["loss"], s=2, color=GREY, linewidths=0, label="each step")
            axes.plot(rows["step"], rows["loss"].rolling(10, min_periods=1).mean(), color=colour, linestyle=dash, linewidth=1, label=name)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step; lines are the mean of the last ten")
        axes.set_ylabel("loss (nats a token)")
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure


def _scale(colours: tuple[str, ...]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("pale", colours)


def _style(marks: tuple[str, str, bool]) -> dict[str, Any]:
    """What a scatter is told of a colour and a shape, filled or open."""
    colour, shape, filled = marks
    if shape == "x":
        return {"color": colour, "marker": shape, "s": 14, "linewidths": 0.9}
    return {
        "facecolors": colour if filled else "none",
        "edgecolors": colour,
        "marker": shape,
        "s": 26 if shape == "*" else 14,
        "linewidths": 0.8,
    }


def score_by_size(panels: dict[str, pd.DataFrame], measure: str, *, width: float = 2 * WIDTH) -> Figure:
    """Score against the parameters of the model, a panel a task and a line a way, with 95 % intervals: as Lester et al. 2021, figure 1.

    Parameters
    ----------
    panels : by title, rows with model, parameters, way, score, low, high, and least and most of the seeds that the score is the mean of, which are drawn as open
        marks where they differ. A row without a score is left out.
    measure : what the score is.
    width : in mm.
    """
    ways = list(dict.fromkeys(way for table in panels.values() for way in table["way"]))
    down = -(-len(panels) // COLUMNS)
    with sheet(width, _AROUND + 52 * down) as figure:
        for i, (title, table) in enumerate(panels.items()):
            axes = figure.add_subplot(down, min(COLUMNS, len(panels)), i + 1)
            scored = table[table["score"].notna()].sort_values("parameters", kind="stable")
            for j, way in enumerate(ways):
                rows = scored[scored["way"] == way]
                if not len(rows):
                    continue
                colour, marker = _WAYS[j % len(_WAYS)]
                aside = 1.04 ** (j - (len(ways) - 1) / 2)  # so that intervals can be told apart
                bars = [rows["score"] - rows["low"], rows["high"] - rows["score"]]
                for row in rows[rows["most"] > rows["least"]].itertuples():
                    axes.plot(
                        [row.parameters * aside] * 2,
                        [row.least, row.most],
                        f"{marker}:",
                        color=colour,
                        markersize=3.5,
                        mfc="white",
                        mew=0.6,
                        linewidth=0.6,
                    )
                axes.errorbar(
                    rows["parameters"] * aside,
                    rows["score"],
                    bars,
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linewidth=0.8,
                    elinewidth=0.6,
                    label=way,
                )
            models = scored.drop_duplicates("model")
            axes.set_xscale("log")
            axes.set_xticks(models["parameters"], [f"{number / 1e6:,.0f} M" for number in models["parameters"]], minor=False)
            axes.minorticks_off()
            axes.set_ylim(-0.02, 1.02)
            axes.set_title(title, fontsize=7)
            if i % COLUMNS == 0:
                axes.set_ylabel(measure)
        labelled = {way: handle for axes in figure.axes for handle, way in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(list(labelled.values()), list(labelled), loc="outside upper left", ncols=len(ways), frameon=False)
        figure.supxlabel("parameters of the model", fontsize=7)
    return figure
