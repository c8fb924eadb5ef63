"""Build a dashboard from rows of panels: variables, links to the others, positions of panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.generate.dashboards.panels import DATASOURCE, Panel

TAG = "ntm"


@dataclass(frozen=True)
class PanelRow:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


def dashboard(name: str, description: str, rows: Sequence[PanelRow], one: str = "") -> Dashboard:
    """Return the dashboard `ntm-<name>`. The variable `one` selects a single value."""
    board = (
        builders.Dashboard(f"NTM: {name}")
        .uid(f"ntm-{name}")
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(builders.DatasourceVariable("datasource").label("Source").type("prometheus"))
        .with_variable(_variable("instance", "Replica", "ntm_build_info", one))
        .with_variable(_variable("model", "Model", 'ntm_model_info{instance=~"$instance"}', one))
        .link(
            builders.DashboardLink("NTM dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    numbers = iter(range(1, 1000))
    for row in rows:
        board.with_row(builders.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            board.with_panel(panel.id(next(numbers)))
    built = board.build()
    for variable in built.templating.list_val or []:
        # Grafana writes these for interval variables only.
        variable.auto = variable.auto_count = variable.auto_min = None
    return built


def _variable(name: str, label: str, metric: str, one: str) -> builders.QueryVariable:
    variable = (
        builders.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(f"label_values({metric}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if name == one:
        return variable
    everything = VariableOption(text="All", value="$__all", selected=True)
    return variable.multi(True).include_all(True).all_value(".*").current(everything)
