"""`shoal run`, `shoal execute` and `shoal watch`: start a run and see it to its end."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer
from clusters.v1 import cluster_pb2, execution_pb2, watch_pb2

from server.cli.arguments import LabelWords, RunWords, create_request
from server.cli.connection import Connection, connect
from server.cli.console import as_json, print_json, printable, say
from server.cli.faults import EXIT_FAILED, EXIT_INTERRUPTED
from server.cli.follow import Watch, follow
from server.cli.options import (
    ClusterArgument,
    JsonOption,
    KeyOption,
    NamespaceOption,
    RunOption,
    ServerOption,
    TitleFieldOption,
)
from server.cli.progress import no_view, progress_view
from server.cli.results import report_run
from server.cli.run_options import (
    METHODS_HELP,
    AttributeOption,
    FeatureOption,
    HierarchicalOption,
    LabelFieldOption,
    LabelOption,
    MaxDepthOption,
    ModelOption,
    OutputPerFeatureOption,
    ParentGroupOption,
    ParentOption,
    ProviderOption,
    StrategyOption,
    WeightOption,
)

TopOption = Annotated[int, typer.Option("--top", min=1, max=1000, help="Groups to show.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Only start the run.")]


def run(
    collection: Annotated[
        list[str], typer.Option("--collection", metavar="NAME", help="Collection; repeatable.")
    ],
    method: Annotated[str | None, typer.Option("--method", help=METHODS_HELP)] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Method parameter; repeatable."),
    ] = None,
    filter_text: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON|@FILE", help="Cluster only what matches."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the cluster.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="For people.")] = None,
    sample_size: Annotated[
        int | None, typer.Option("--sample-size", help="Cluster a sample, assign the rest.")
    ] = None,
    centroid: Annotated[
        str | None, typer.Option("--centroid", help="mean (default), median or medoid.")
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            metavar="JSON|NAME",
            help="Step before the method, in order; repeatable: normalize, whitening, umap or "
            """'{"method":"pca","n_components":50}'.""",
        ),
    ] = None,
    feature: FeatureOption = None,
    strategy: StrategyOption = None,
    weight: WeightOption = None,
    output_per_feature: OutputPerFeatureOption = False,
    attribute: AttributeOption = None,
    hierarchical: HierarchicalOption = False,
    max_depth: MaxDepthOption = None,
    parent: ParentOption = None,
    parent_group: ParentGroupOption = None,
    label: LabelOption = False,
    model: ModelOption = None,
    provider: ProviderOption = None,
    label_field: LabelFieldOption = None,
    enrich: Annotated[
        bool, typer.Option("--enrich", help="Write into the documents, make no output collection.")
    ] = False,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="SOURCE=TARGET", help="Field to enrich with; repeatable."),
    ] = None,
    no_wait: NoWaitOption = False,
    top: TopOption = 20,
    title_field: TitleFieldOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Create a cluster, watch its first run, and show the groups it finds.

    Example: shoal run --collection docs --method kmeans --param n_clusters=60
    """
    words = RunWords(
        collections=collection,
        method=method,
        name=name,
        description=description,
        features=feature or [],
        strategy=strategy,
        weights=weight or [],
        output_per_feature=output_per_feature,
        steps=step or [],
        params=param or [],
        hierarchical=hierarchical,
        max_depth=max_depth,
        attributes=attribute or [],
        parent=parent,
        parent_group=parent_group,
        filter_text=filter_text,
        sample_size=sample_size,
        centroid=centroid,
        label=LabelWords(label, model, provider, label_field or []),
        enrich=enrich,
        mappings=mapping or [],
    )
    request = create_request(words)
    with connect(server, key, namespace) as connection:
        cluster = connection.call(connection.clusters.CreateCluster, request)
        if no_wait:
            _show_started(cluster, json_output=json_output)
            return
        watch_to_end(
            connection,
            Watch(cluster.cluster_id, cluster.last_run_id or None),
            top=top,
            title_field=title_field,
            json_output=json_output,
        )


def execute(
    cluster: ClusterArgument,
    assign: Annotated[
        bool, typer.Option("--assign", help="Keep the groups; only place new documents.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", min=0, max=1, help="Least cosine similarity for --assign (0.5)."
        ),
    ] = None,
    no_wait: NoWaitOption = False,
    top: TopOption = 20,
    title_field: TitleFieldOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Run a cluster again; its outputs are replaced at the end, all at once."""
    with connect(server, key, namespace) as connection:
        task = connection.call(
            connection.clusters.ExecuteCluster,
            execution_pb2.ExecuteClusterRequest(
                cluster_id=cluster,
                mode="assign" if assign else None,
                assignment_threshold=threshold,
            ),
        )
        if no_wait:
            if json_output:
                print_json(as_json(task))
            else:
                say(f"queued {task.task_id}; watch it with `shoal watch {cluster}`")
            return
        watch_to_end(
            connection, Watch(cluster), top=top, title_field=title_field, json_output=json_output
        )


def watch(
    cluster: ClusterArgument,
    run_id: RunOption = None,
    after: Annotated[
        int, typer.Option("--after", min=0, help="Show only events after this sequence.")
    ] = 0,
    top: TopOption = 20,
    title_field: TitleFieldOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show a run's events, past and coming, until it ends, and then its groups.

    JSON has one event per line, and no groups.
    """
    with connect(server, key, namespace) as connection:
        watched = Watch(cluster, run_id, after)
        if not json_output:
            watch_to_end(connection, watched, top=top, title_field=title_field, json_output=False)
            return
        with progress_view(as_json=True) as view:
            try:
                for event in follow(connection, watched):
                    view.show(event)
            except KeyboardInterrupt:
                raise typer.Exit(EXIT_INTERRUPTED) from None
        if event.status != "completed":
            raise typer.Exit(EXIT_FAILED)


def watch_to_end(
    connection: Connection,
    watched: Watch,
    *,
    top: int,
    title_field: str | None,
    json_output: bool,
) -> None:
    """Show a run until it ends, and what it found; exit with 1 if it did not complete."""
    last: watch_pb2.ExecutionEvent | None = None
    try:
        with no_view() if json_output else progress_view() as view:
            for last in follow(connection, watched):
                view.show(last)
    except KeyboardInterrupt:
        _leave(watched)
    assert last is not None  # `follow` ends after a final event, or raises.
    if last.status == "completed":
        report = report_run(connection, last.cluster, last.run_id, top=top, title_field=title_field)
        if json_output:
            print_json(report.as_json())
        else:
            report.show()
        return
    if json_output:
        print_json({"cluster": as_json(last.cluster), "event": as_json(last)})
    raise typer.Exit(EXIT_FAILED)


def _leave(watched: Watch) -> NoReturn:
    say("")
    say(f"the run goes on without you. See it again: {watched.command}")
    say(f"or stop it: shoal cancel {watched.cluster_id}")
    raise typer.Exit(EXIT_INTERRUPTED)


def _show_started(cluster: cluster_pb2.Cluster, *, json_output: bool) -> None:
    if json_output:
        print_json(as_json(cluster))
        return
    say(f"created {printable(cluster.cluster_name)} ({cluster.cluster_id})")
    say(f"watch it with `shoal watch {cluster.cluster_id}`")
