"""Colours and style of a report, in a light and a dark form.

Pictures are documents of their own and read no style of the page, so both are made
here from one table of colours. Fonts are those of the reader's system.
"""

__all__ = ["PICTURE_STYLE", "STYLE"]

# Name: light, dark. Texts have a contrast of at least 4.5 to their background. Lines
# are of Okabe and Ito's palette, which people with any colour vision tell apart.
_COLORS = {
    "paper": ("#ffffff", "#16181c"),
    "ink": ("#1c1e21", "#e6e7e9"),
    "faint": ("#5c6167", "#a5abb3"),
    "line": ("#d5d8dc", "#3a3f46"),
    "panel": ("#f5f6f8", "#1f2228"),
    "good": ("#00684a", "#4cc69a"),
    "warn": ("#8a5200", "#f0b04a"),
    "bad": ("#b3261e", "#ff8a80"),
    "history": ("#4d4d4d", "#b9bdc3"),
    "forecast": ("#0072b2", "#56b4e9"),
}


def _variables(which: int) -> str:
    return "".join(f"--{name}:{both[which]};" for name, both in _COLORS.items())


_THEMES = (
    f":root{{color-scheme:light dark;{_variables(0)}}}\n"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(1)}}}}}\n"
)

PICTURE_STYLE = _THEMES + "text{font-family:system-ui,sans-serif!important}\n"
"""Style inside of every picture."""

STYLE = (
    _THEMES
    + """\
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
  font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:58rem;margin:0 auto;padding:1.2rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:.1rem 0 1rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.4rem 0 .6rem}
p,ul{margin:.5rem 0}
ul{padding-left:1.3rem}
li,td,th,h1,h3,figcaption{unicode-bidi:isolate;overflow-wrap:anywhere}
.faint{color:var(--faint);margin:0}
.verdict{border-left:.4rem solid var(--tone);background:var(--panel);
  padding:.8rem 1rem;border-radius:0 .4rem .4rem 0}
.verdict h2{margin:0;color:var(--tone);font-size:1.25rem}
.verdict h3{margin:.8rem 0 0;font-size:1rem}
.good{--tone:var(--good)}.warn{--tone:var(--warn)}.bad{--tone:var(--bad)}
b.good,b.warn,b.bad{color:var(--tone)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--faint);padding:.3rem 0}
th,td{text-align:left;vertical-align:top;padding:.35rem .8rem .35rem 0;
  border-bottom:1px solid var(--line)}
thead th{color:var(--faint);font-weight:600;vertical-align:bottom;
  overflow-wrap:normal}
thead .n{white-space:normal}
td{min-width:3.6rem}
tbody th{font-weight:500;min-width:5.5rem}
.facts th{color:var(--faint);width:11rem}
.n{text-align:right;white-space:nowrap}
.n+:not(.n){padding-left:.8rem}
.wide{overflow-x:auto;margin:.6rem 0}
.wide:focus-visible,summary:focus-visible{outline:2px solid var(--forecast)}
.pictures{display:grid;gap:1.2rem;margin:.8rem 0;
  grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
figure{margin:0;min-width:0}
figure img{display:block;width:100%;height:auto}
figcaption{font-weight:600;margin-bottom:.2rem}
.key{display:inline-block;width:1.6rem;border-top:.2rem solid;
  vertical-align:middle;margin-right:.3rem}
.history{border-color:var(--history)}.forecast{border-color:var(--forecast)}
.keys span{margin-right:1.2rem;white-space:nowrap}
details{margin:.8rem 0}
summary{cursor:pointer}
meter{width:min(100%,20rem);height:1.2rem}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@media (max-width:34rem){
  .facts tr{display:block;padding:.35rem 0;border-bottom:1px solid var(--line)}
  .facts th,.facts td{display:block;width:auto;padding:0;border:0}
}
@media print{.wide{overflow:visible}h2{break-after:avoid}figure{break-inside:avoid}}
"""
)
"""Style of the page."""
