1 + 1
# %%
x = 5
# %%
x
# %%
print("hello"); print("world")
# %%
print("a", end=""); x * 2
# %%
_
# %%
import sys
print("to stderr", file=sys.stderr)
# %%
[1, 2, [3, {"a": (4, 5)}]]
# %%
{"b": 1, "a": [1.5, None, True]}
# %%
"text with 'quotes' and \n line ends"
# %%
None
# %%
x;
# %%
1 / 0
# %%
def outer(n):
    def inner(m):
        return [1, 2, 3][m]
    return inner(n)

outer(7)
# %%
try:
    {}["missing"]
except KeyError as error:
    raise ValueError("wrapped") from error
# %%
raise Exception
# %%
class Account:
    """An account."""
    def __init__(self, owner, balance=0):
        self.owner, self.balance = owner, balance
    def deposit(self, amount):
        if amount <= 0:
            raise ValueError(f"bad amount: {amount}")
        self.balance += amount
        return self
    def __repr__(self):
        return f"Account({self.owner!r}, {self.balance})"

Account("ann").deposit(10)
# %%
Account("bob").deposit(-1)
# %%
from dataclasses import dataclass
@dataclass
class Point:
    x: float
    y: float = 0.0
[Point(1), Point(2, 3)]
# %%
import enum
class Color(enum.Enum):
    RED = 1
    GREEN = 2
list(Color)
# %%
def count(n):
    for i in range(n):
        yield i
sum(count(10)), list(count(3))
# %%
import asyncio
async def double(n):
    await asyncio.sleep(0.001)
    return 2 * n
await asyncio.gather(*(double(n) for n in range(4)))
# %%
async with asyncio.timeout(60):
    result = await double(21)
result
# %%
[n async for n in (await double(i) for i in range(3))]
# %%
await double(None)
# %%
task = asyncio.create_task(double(5))
# %%
await task
# %%
def broken(:
    pass
# %%
if True:
print("bad indent")
# %%
"unterminated
# %%
undefined_name
# %%
assert 1 == 2, "not equal"
# %%
import numpy as np
np.arange(12).reshape(3, 4)
# %%
np.linspace(0, 1, 5) * np.pi
# %%
np.array([1.5, np.nan, np.inf])
# %%
np.ones((2, 3)) @ np.ones((2, 3))
# %%
import pandas as pd
df = pd.DataFrame({"name": ["Ann", "Bob", None, "Dan"], "age": [31, None, 45, 22], "city": ["Oslo", "Rome", "Oslo", None]})
df
# %%
df.dtypes
# %%
df.isna().sum()
# %%
clean = df.dropna(subset=["name"]).assign(age=lambda d: d.age.fillna(d.age.mean()))
clean
# %%
clean.groupby("city", dropna=False).age.agg(["count", "mean"])
# %%
df.describe()
# %%
df["missing"]
# %%
pd.date_range("2024-01-01", periods=3, freq="D")
# %%
df.info()
# %%
df.style.highlight_null() if False else df.head(2).to_dict("records")
# %%
pd.concat([df, df]).reset_index(drop=True).sort_values("age")
# %%
wide = pd.DataFrame(np.arange(100).reshape(2, 50)); wide
# %%
pd.Series(range(100), name="n")
# %%
%matplotlib inline
import matplotlib.pyplot as plt
plt.plot([1, 2, 3], [1, 4, 9]); plt.title("squares"); plt.show()
# %%
plt.bar(["a", "b"], [3, 4])
# %%
fig, axes = plt.subplots(1, 2, figsize=(6, 2))
axes[0].hist([1, 1, 2, 3, 3, 3]); axes[1].scatter([1, 2], [3, 4])
fig
# %%
df.plot.bar(x="name", y="age");
# %%
plt.close("all"); plt.figure(figsize=(1, 1)); plt.pie([1, 2]); print("before the picture")
# %%
plt.plot([1, 2], [1])
# %%
from IPython.display import HTML, JSON, Latex, Markdown, SVG, display, clear_output
display(HTML("<b>bold</b>"), Markdown("# title"))
# %%
Latex(r"$\frac{1}{2}$")
# %%
JSON({"a": [1, 2]})
# %%
SVG('<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect width="5" height="5"/></svg>')
# %%
for i in range(3):
    print("step", i)
    display(i)
# %%
display({"text/plain": "plain", "application/x-own+json": {"a": 1}}, raw=True)
# %%
class Rich:
    def _repr_html_(self): return "<i>rich</i>"
    def __repr__(self): return "rich"
Rich()
# %%
class Broken:
    def __repr__(self): raise RuntimeError("no repr")
Broken()
# %%
class Mime:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": "m", "text/html": "<m>"}, {"text/html": {"isolated": True}}
Mime()
# %%
%%bash
echo "from bash"
echo "to stderr" >&2
# %%
!echo "from a shell" && printf 'no end'
# %%
files = !printf 'a\nb\n'
files
# %%
%%capture captured
print("hidden")
# %%
captured.stdout
# %%
%%writefile /tmp/module_of_cells.py
def answer():
    return 42
# %%
import sys; sys.path.insert(0, "/tmp")
import module_of_cells
module_of_cells.answer()
# %%
%cd /tmp
# %%
%pwd
# %%
%who_ls str
# %%
%env HOME
# %%
%%bash
exit 3
# %%
%nosuchmagic
# %%
import warnings
warnings.warn("careful")
# %%
import logging
logging.warning("logged")
# %%
import subprocess
subprocess.run(["echo", "from a program"], capture_output=True, text=True).stdout
# %%
import threading
thread = threading.Thread(target=print, args=("from a thread",)); thread.start(); thread.join()
# %%
import sys
sys.exit("stopped")
# %%
from functools import lru_cache
@lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
fib(80), fib.cache_info()
# %%
import re, json, collections, itertools, datetime, decimal, fractions
collections.Counter(re.findall(r"\w+", "a b a c a")), json.dumps({"a": [1]}), datetime.date(2024, 2, 29), decimal.Decimal("1.10"), fractions.Fraction(3, 6)
# %%
from PIL import Image
Image.new("RGB", (4, 3), "blue")
# %%
range(10), (n for n in []).__class__, len, int
# %%
"x" * 2000
# %%
list(range(1500))
# %%
def recurse(n): return recurse(n + 1)
recurse(0)
# %%
In[2], Out[1], _oh[1], __name__
