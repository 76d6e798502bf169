"""What a data frame holds, for programs."""

import math

# As in the agent, `api::limit`.
TABLE_ROWS = 10_000
# A row of more than that many cells on average would make the whole too large.
TABLE_CELLS = 200_000
CELL_CHARS = 10_000


def table(pandas, obj):
    frame = obj.to_frame(name="value" if obj.name is None else obj.name) if isinstance(obj, pandas.Series) else obj
    total = len(frame)
    rows = min(total, TABLE_ROWS, max(1, TABLE_CELLS // max(1, frame.shape[1])))
    head = frame.iloc[:rows]
    columns = unique([text(column) for column in head.columns])
    lists = [[cell(pandas, value) for value in head.iloc[:, at].tolist()] for at in range(len(columns))]
    return {
        "columns": columns,
        "types": [str(kind) for kind in frame.dtypes.tolist()],
        "records": [dict(zip(columns, row)) for row in zip(*lists)] if lists else [{} for _ in range(rows)],
        "index": [cell(pandas, value) for value in head.index.tolist()],
        "totalRows": total,
        "truncated": rows < total,
    }


def text(name):
    return name if isinstance(name, str) else " ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def unique(names):
    """Columns may have one name; fields of a record may not."""
    seen = {}
    result = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(f"{name}.{count}" if count else name)
    return result


def cell(pandas, value):
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return value[:CELL_CHARS]
    if kind is int:
        return value if -(2**63) <= value < 2**63 else str(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if hasattr(value, "isoformat"):
        # NaT has it too, and says that it is none.
        return None if value is pandas.NaT else value.isoformat()
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return cell(pandas, value.item())
    if kind in (list, tuple):
        return [cell(pandas, item) for item in value[:1000]]
    if kind is dict:
        return {str(key): cell(pandas, item) for key, item in list(value.items())[:1000]}
    try:
        if pandas.isna(value) is True:
            return None
    except Exception:
        pass
    return str(value)[:CELL_CHARS]
