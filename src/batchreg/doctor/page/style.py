"""The style of doctor's page: for a phone first, in light and in dark."""

from __future__ import annotations

STYLE = """
:root { --paper: #fff; --card: #f7f8fa; --ink: #1c2128; --soft: #57606a; --rule: #d8dee4;
  --way: #6e7781; --good: #1a7f37; --bad: #c62828; --bad-paper: #fdf0ef; --unsure: #8a5a00;
  --faint: #868f99; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0f1419; --card: #181f27; --ink: #e6edf3; --soft: #9aa5b1; --rule: #303a45;
    --way: #8b96a2; --good: #4cc26a; --bad: #ff7b72; --bad-paper: #2a1719; --unsure: #e3b341;
    --faint: #6b7683; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  overflow-wrap: anywhere; -webkit-text-size-adjust: 100%; }
main { max-width: 60rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; display: flex; gap: .65rem; text-wrap: balance; }
h2 { font-size: 1.125rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .4rem 0; }
ul, ol, dl, dd, figure { margin: 0; padding: 0; list-style: none; }
code, pre, .id { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.program { margin: 0 0 .5rem; color: var(--soft); font-size: .875rem; letter-spacing: .02em; }
.badge { flex: none; width: 1.9rem; height: 1.9rem; border-radius: .45rem; color: var(--paper);
  font-size: 1.1rem; line-height: 1.9rem; text-align: center; background: var(--good); }
.bad .badge { background: var(--bad); }
.more { margin-left: 2.55rem; }
.note, .more { color: var(--soft); }
.about { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr));
  gap: .75rem 1.25rem; margin-top: 1.25rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
.about dt { font-size: .8125rem; color: var(--soft); }
.about dd { font-size: .875rem; }
.findings { display: grid; gap: .75rem; counter-reset: finding; }
.findings > li { background: var(--card); border-radius: .5rem; padding: .9rem 1rem;
  border-left: 4px solid var(--rule); counter-increment: finding; }
.findings > .first { background: var(--bad-paper); border-left-color: var(--bad); }
.findings > li > :last-child { margin-bottom: 0; }
.findings h3::before { content: counter(finding) ". "; }
.cause { margin: 0 0 .5rem; font-size: .8125rem; color: var(--soft); }
.label { font-size: .8125rem; font-weight: 600; margin: .6rem 0 .2rem; }
.next .label { margin-right: .3rem; }
.fix { margin: 0; padding: .6rem .75rem; background: var(--paper); border: 1px solid var(--rule);
  border-radius: .375rem; font-size: .8125rem; line-height: 1.5; white-space: pre-wrap;
  -webkit-user-select: all; user-select: all; }
.fix span { display: inline-block; max-width: 100%; }
figure { margin-top: 1rem; padding: .9rem 0 .75rem; border-top: 1px solid var(--rule); }
figcaption span { display: inline-block; color: var(--soft); font-size: .8125rem; margin-left: .6rem; }
.row { display: grid; }
.row > .name { font-size: .875rem; line-height: 1.25; }
.name small { font-size: .75rem; color: var(--soft); margin-left: .5rem; }
.stages { margin: .75rem 0 .5rem; }
.stages > div { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr);
  align-items: end; }
.stages div span { font-size: .6875rem; line-height: 1.2; color: var(--soft); text-align: center;
  overflow-wrap: normal; }
.track { display: block; overflow: visible; }
line { stroke: var(--way); stroke-width: 2; }
.unsure { stroke: var(--unsure); stroke-dasharray: 6 4; }
.lost { stroke: var(--faint); stroke-dasharray: 1 6; stroke-linecap: round; }
.dot { fill: var(--good); stroke: var(--paper); stroke-width: 2; }
.stop { fill: var(--bad); stroke: var(--paper); stroke-width: 3; }
.cross { stroke: var(--paper); stroke-width: 3; stroke-linecap: round; }
.ring { fill: var(--paper); stroke: var(--unsure); stroke-width: 1.75; stroke-dasharray: 3 2; }
.question { fill: var(--unsure); font-size: 12px; font-weight: 700; }
.empty { fill: var(--paper); stroke: var(--faint); stroke-width: 1.5; }
.id, .kind { font-size: 11px; fill: var(--soft); }
.id { display: none; }
.broken .id, .broken .kind { fill: var(--bad); font-weight: 600; }
.stops { display: grid; gap: .35rem; margin-top: .5rem; font-size: .875rem; }
.stops li { display: flex; gap: .5rem; }
.stops .sign { flex: none; width: 1rem; font-weight: 700; text-align: center; color: var(--unsure); }
.stops .broken .sign, .stops .broken b { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin-top: .75rem;
  font-size: .8125rem; color: var(--soft); }
.legend li { display: flex; align-items: center; gap: .35rem; }
.table { font-size: .875rem; }
.table > div { padding: .35rem 0; border-bottom: 1px solid var(--rule); }
.table dt { font-weight: 500; }
.table dd { color: var(--soft); }
section > h3 { margin-top: 1.25rem; }
footer { margin-top: 2rem; color: var(--soft); font-size: .8125rem; }
@media (min-width: 45rem) {
  main { padding-top: 2.5rem; }
  h1 { font-size: 1.75rem; }
  .about dd { font-size: 1rem; }
  .row { grid-template-columns: 10rem minmax(0, 1fr); }
  .row > .name { padding-top: .4rem; }
  .name small { display: block; margin: 0; }
  .about { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
  .stages div span { font-size: .8125rem; }
  .id { display: inline; }
  .kind { display: none; }
  .table > div { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 1.5rem; }
}
@media print { .findings > li { break-inside: avoid; } figure { break-inside: avoid; } }
"""
