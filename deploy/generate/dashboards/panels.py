"""The three kinds of panel: lines over time, one number, and a table."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.generate.dashboards.queries import Query

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = timeseries.Panel | stat.Panel | table.Panel

HEIGHT = 9
"""The height of a panel with lines, in units of 30 pixels. A dashboard is 24 columns wide."""


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    bound: float | None = None,
    maximum: float | None = None,
    span: int = 8,
) -> timeseries.Panel:
    """Return a panel with lines. `bound` draws a dashed line; `maximum` ends the axis."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .height(HEIGHT)
        .span(span)
        .color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .fill_opacity(35 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if maximum is not None:
        panel.max(maximum)
    if bound is not None:
        panel.thresholds(_thresholds(bound))
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(_target(query, letter).range())
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    bound: float | None = None,
    good_above: bool = False,
    decimals: int | None = None,
    span: int = 4,
) -> stat.Panel:
    """
    Return a panel with the last value over its history.

    It is red above `bound` or, with `good_above`, below it.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(4)
        .span(span)
        .graph_mode(BigValueGraphMode.AREA)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
        .thresholds(_thresholds(bound, good_above=good_above))
        .with_target(_target(Query(expr, title), "A").range())
    )
    return panel if decimals is None else panel.decimals(decimals)


def rows(
    title: str, description: str, query: Query, hidden: tuple[str, ...] = (), unit: str = "none"
) -> table.Panel:
    """Return a table: a row for each series, its labels except `hidden`, its value in `unit`."""
    hide = dict.fromkeys(("Time", "__name__", "job", *hidden), True)
    target = _target(query, "A").instant().format(PromQueryFormat.TABLE)
    value = DynamicConfigValue(id_val="displayName", value=query.legend)
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(6)
        .span(12)
        .override_by_name("Value", [value])
        .with_transformation(
            DataTransformerConfig(id_val="organize", options={"excludeByName": hide})
        )
        .with_target(target)
    )


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(letter)
    )


def _thresholds(
    bound: float | None = None, *, good_above: bool = False
) -> builders.ThresholdsConfig:
    below, above = ("red", "green") if good_above else ("green", "red")
    steps = [Threshold(value=None, color="green" if bound is None else below)]
    if bound is not None:
        steps.append(Threshold(value=bound, color=above))
    return builders.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
