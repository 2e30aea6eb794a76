"""/metrics: what OpenTelemetry measured and how much there is to do, as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter, Response
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricReader
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tidegate.server.context import Context


class Exposition:
    """A registry of our own: a host's metrics are not ours to show."""

    def __init__(self) -> None:
        """Begin with what there is to do alone."""
        self._registry = CollectorRegistry()
        self._backlog = _Backlog()
        self._registry.register(self._backlog)

    def reader(self) -> MetricReader:
        """Return what a meter provider of OpenTelemetry has its measurements read by."""
        return PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)

    async def text(self, context: Context) -> bytes:
        """Return everything as it is now.

        Raises:
            StoreUnavailable, StoreError: the store cannot be read.
        """
        stats = await context.engine.stats()
        self._backlog.threads = {str(status): number for status, number in stats.threads.items()}
        self._backlog.executing = stats.executing
        return await asyncio.to_thread(generate_latest, self._registry)

    def router(self, context: Context) -> APIRouter:
        """Return the route."""
        routes = APIRouter(tags=["health"])

        @routes.get(
            "/metrics",
            summary="Metrics, as Prometheus reads them",
            response_class=Response,
            responses={200: {"content": {"text/plain": {}}, "description": "the text format of Prometheus"}},
        )
        async def metrics() -> Response:
            return Response(await self.text(context), media_type=CONTENT_TYPE_LATEST)

        return routes


class _Backlog(Collector):
    """What the store said last."""

    def __init__(self) -> None:
        self.threads: dict[str, int] = {}
        self.executing = 0

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        threads = GaugeMetricFamily("tidegate_threads", "Threads in the store.", labels=["status"])
        for status, number in sorted(self.threads.items()):
            threads.add_metric([status], number)
        yield threads
        yield GaugeMetricFamily("tidegate_executing", "Executions of this process that go on.", value=self.executing)
