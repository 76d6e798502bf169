"""What a matplotlib figure shows, for programs: read from its artists."""

import math

# As in the agent, `api::limit`.
CHART_POINTS = 10_000
CHART_AXES = 64
CHART_SERIES = 256


def chart(figure):
    axes = [read_axes(axes) for axes in figure.axes[:CHART_AXES] if is_plot(axes)]
    title = figure._suptitle.get_text() if getattr(figure, "_suptitle", None) else ""
    return {
        "type": axes[0]["type"] if axes else "unknown",
        "title": title or next((one["title"] for one in axes if one["title"]), None),
        "library": "matplotlib",
        "axes": axes,
    }


def is_plot(axes):
    # The scale of colours beside a picture is no plot of its own.
    return getattr(axes, "_colorbar", None) is None and axes.get_label() != "<colorbar>"


def read_axes(axes):
    from matplotlib.collections import PathCollection
    from matplotlib.container import BarContainer
    from matplotlib.patches import PathPatch, StepPatch, Wedge

    series = []
    boxes, rest = find_boxes(axes, list(axes.lines), [p for p in axes.patches if isinstance(p, PathPatch)])
    if boxes is not None:
        series.append(boxes)
    in_containers = set()
    for container in axes.containers:
        if isinstance(container, BarContainer) and len(container.patches):
            series.append(read_bars(axes, container.patches, container.get_label()))
            in_containers.update(map(id, container.patches))
        else:
            errors = getattr(container, "lines", None)
            if errors is not None:
                # Of an error bar the line is a series, its caps are not.
                in_containers.update(id(line) for line in errors[1])
    series += [read_line(axes, line) for line in rest if id(line) not in in_containers and len(line.get_xdata(orig=False))]
    for collection in axes.collections:
        if isinstance(collection, PathCollection) and len(collection.get_offsets()):
            series.append(read_scatter(axes, collection))
    wedges = [patch for patch in axes.patches if isinstance(patch, Wedge)]
    if wedges:
        series.append(read_pie(axes, wedges))
    for patch in axes.patches:
        if isinstance(patch, StepPatch):
            values, edges, _ = patch.get_data()
            counts = numbers(values)
            series.append({"type": "histogram", "label": label(patch), "edges": numbers(edges), "counts": counts})
    loose = [patch for patch in axes.patches if hasattr(patch, "get_height") and hasattr(patch, "get_x") and id(patch) not in in_containers]
    if loose and not wedges and boxes is None:
        series.append(read_bars(axes, loose, ""))
    series = [one for one in series if one is not None][:CHART_SERIES]
    kinds = list(dict.fromkeys(one["type"] for one in series))
    return {
        "type": kinds[0] if len(kinds) == 1 else "mixed" if kinds else "unknown",
        "title": axes.get_title() or axes.get_title(loc="left") or axes.get_title(loc="right") or None,
        "x": read_axis(axes.xaxis, axes.get_xlabel(), axes.get_xlim()),
        "y": read_axis(axes.yaxis, axes.get_ylabel(), axes.get_ylim()),
        "series": series,
    }


def read_axis(axis, text, limits):
    names = categories(axis)
    converter = get_converter(axis)
    scale = axis.get_scale()
    if names:
        scale = "categorical"
    elif is_dates(converter):
        scale = "datetime"
    ends = numbers(limits)
    return {
        "label": text or None,
        "scale": scale,
        "limits": ends if len(ends) == 2 and scale != "datetime" else None,
        "categories": list(names.values()) if names else [],
    }


def get_converter(axis):
    return axis.get_converter() if hasattr(axis, "get_converter") else getattr(axis, "converter", None)


def is_dates(converter):
    name = type(converter).__name__
    return "Date" in name or "Period" in name or "Time" in name


def categories(axis):
    """Names of positions, where the axis has such: those of its unit, else fixed tick labels."""
    mapping = getattr(getattr(axis, "units", None), "_mapping", None)
    if mapping:
        return {float(at): str(name) for name, at in mapping.items()}
    from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter

    formatter, locator = axis.get_major_formatter(), axis.get_major_locator()
    if isinstance(locator, FixedLocator):
        if isinstance(formatter, FixedFormatter):
            texts = list(formatter.seq)
        elif isinstance(formatter, FuncFormatter):
            texts = [formatter(at, position) for position, at in enumerate(locator.locs)]
        else:
            return {}
        if any(not is_number(text) for text in texts):
            return {float(at): str(text) for at, text in zip(locator.locs, texts)}
    return {}


def is_number(text):
    try:
        float(str(text).replace("\u2212", "-"))
        return True
    except ValueError:
        return False


def positions(axis, values):
    """Values along an axis as callers think of them: numbers, times or names."""
    names = categories(axis)
    converter = get_converter(axis)
    if is_dates(converter):
        return dates(axis, values)
    if names:
        return [names.get(round(float(value), 6), number(value)) for value in values]
    return [number(value) for value in values]


def dates(axis, values):
    values = list(values)
    if values and hasattr(values[0], "isoformat"):
        return [value.isoformat() for value in values]
    frequency = getattr(axis, "freq", None)
    if frequency is not None:
        # pandas puts periods on its axes as their ordinals.
        import pandas

        return [pandas.Period(ordinal=int(value), freq=frequency).to_timestamp().isoformat() for value in values]
    from matplotlib.dates import num2date

    return [num2date(value).replace(tzinfo=None).isoformat() for value in values]


def number(value):
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def numbers(values):
    return [float(value) for value in values if math.isfinite(float(value))]


def label(artist):
    text = artist.get_label() if hasattr(artist, "get_label") else artist
    text = str(text or "")
    return None if not text or text.startswith("_") else text


def xy(kind, axes, name, x, y, **more):
    x, y = list(x), list(y)
    return {
        "type": kind,
        "label": name,
        "x": positions(axes.xaxis, x[:CHART_POINTS]),
        "y": positions(axes.yaxis, y[:CHART_POINTS]),
        "truncated": len(x) > CHART_POINTS,
        **more,
    }


def read_line(axes, line):
    # Points without a line between them are a scatter plot, whatever drew them.
    has_line = str(line.get_linestyle()).lower() not in ("none", "", " ")
    kind = "line" if has_line or line.get_marker() in (None, "None", "", " ") else "scatter"
    return xy(kind, axes, label(line), line.get_xdata(orig=False), line.get_ydata(orig=False))


def read_scatter(axes, collection):
    offsets = collection.get_offsets()
    return xy("scatter", axes, label(collection), offsets[:, 0], offsets[:, 1])


def read_bars(axes, patches, name):
    patches = list(patches)
    is_horizontal = is_along_x(patches)
    if is_horizontal:
        spans = [(patch.get_y(), patch.get_height(), patch.get_x(), patch.get_width()) for patch in patches]
    else:
        spans = [(patch.get_x(), patch.get_width(), patch.get_y(), patch.get_height()) for patch in patches]
    axis = axes.yaxis if is_horizontal else axes.xaxis
    name = label(name)
    if is_histogram(axis, spans):
        edges = [span[0] for span in spans] + [spans[-1][0] + spans[-1][1]]
        counts = numbers(span[3] for span in spans)
        return {"type": "histogram", "label": name, "edges": numbers(edges), "counts": counts, "horizontal": is_horizontal}
    places = positions(axis, [start + width / 2 for start, width, _, _ in spans[:CHART_POINTS]])
    lengths = [number(length) for _, _, _, length in spans[:CHART_POINTS]]
    x, y = (lengths, places) if is_horizontal else (places, lengths)
    return {
        "type": "bar",
        "label": name,
        "x": x,
        "y": y,
        "horizontal": is_horizontal,
        "truncated": len(spans) > CHART_POINTS,
    }


def is_along_x(patches):
    """Bars of one width stand upright; of one height they lie."""
    if len(patches) == 1:
        return False
    heights = {round(patch.get_height(), 9) for patch in patches}
    widths = {round(patch.get_width(), 9) for patch in patches}
    if len(heights) == 1 and len(widths) == 1:
        return len({round(patch.get_x(), 9) for patch in patches}) == 1
    return len(heights) == 1


def is_histogram(axis, spans):
    """Its bars touch: a bar chart leaves gaps, and names its bars."""
    if len(spans) < 2 or categories(axis):
        return False
    for (start, width, _, _), (following, _, _, _) in zip(spans, spans[1:]):
        if abs(start + width - following) > 1e-6 * max(abs(width), 1e-12):
            return False
    return True


def read_pie(axes, wedges):
    spans = [abs(wedge.theta2 - wedge.theta1) / 360 for wedge in wedges]
    texts = [text.get_text() for text in axes.texts]
    labels = [label(wedge) or "" for wedge in wedges]
    if not any(labels) and len(texts) >= len(wedges):
        # Names first, or each followed by its share.
        step = 2 if len(texts) == 2 * len(wedges) else 1
        labels = texts[::step][: len(wedges)]
    return {"type": "pie", "label": None, "labels": labels, "shares": [round(span, 6) for span in spans]}


def find_boxes(axes, lines, patches):
    """The boxes of a box plot, which matplotlib draws as lines in this order: box, two whiskers, two
    caps, median, perhaps mean, perhaps outliers. What is left is returned too."""
    filled = {index: patch for index, patch in enumerate(patches) if len(patch.get_path().vertices) in (5, 6)}
    boxes, rest, places = [], [], []
    is_upright = None
    index = 0
    pending = [patch.get_path().vertices[:5] for patch in filled.values()]
    while index < len(lines):
        corners = None
        if is_box(lines[index]):
            corners = list(zip(lines[index].get_xdata(), lines[index].get_ydata()))
            parts = lines[index + 1 : index + 8]
        elif pending and is_pair(lines[index]) and index + 4 < len(lines) and all(map(is_pair, lines[index : index + 5])):
            corners = [tuple(corner) for corner in pending.pop(0)]
            parts = lines[index : index + 7]
        if corners is None or len(parts) < 5 or not all(map(is_pair, parts[:5])):
            rest.append(lines[index])
            index += 1
            continue
        taken = 5 + (1 if corners and is_box(lines[index]) else 0)
        upright = parts[2].get_ydata()[0] == parts[2].get_ydata()[1]
        is_upright = upright if is_upright is None else is_upright
        along = (lambda line: line.get_ydata()) if upright else (lambda line: line.get_xdata())
        across = 0 if upright else 1
        quartiles = sorted({float(corner[1 - across]) for corner in corners})
        caps = sorted(float(along(cap)[0]) for cap in parts[2:4])
        outliers = []
        following = index + taken
        while following < len(lines) and not is_pair(lines[following]) and not is_box(lines[following]):
            outliers = numbers(along(lines[following]))[:CHART_POINTS]
            following += 1
            break
        boxes.append(
            {
                "min": caps[0],
                "firstQuartile": quartiles[0],
                "median": float(along(parts[4])[0]),
                "thirdQuartile": quartiles[-1],
                "max": caps[1],
                "outliers": outliers,
            }
        )
        places.append(sum(float(corner[across]) for corner in corners[:4]) / 4)
        index = following
    if not boxes:
        return None, lines
    axis = axes.xaxis if is_upright else axes.yaxis
    labels = [str(place) for place in positions(axis, [round(place, 6) for place in places])]
    return {"type": "box", "label": None, "labels": labels, "boxes": boxes, "horizontal": not is_upright}, rest


def is_box(line):
    x, y = list(line.get_xdata()), list(line.get_ydata())
    if len(x) != 5 or hasattr(x[0], "isoformat") or isinstance(x[0], str):
        return False
    return x[0] == x[4] and y[0] == y[4] and (
        x[0] == x[3] and x[1] == x[2] and y[0] == y[1] and y[2] == y[3]
        or x[0] == x[1] and x[2] == x[3] and y[1] == y[2] and y[0] == y[3]
    )


def is_pair(line):
    return len(line.get_xdata()) == 2
