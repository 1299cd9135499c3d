"""Reading an engine's metrics page (Prometheus text format)."""

from __future__ import annotations

from collections.abc import Mapping

from labs_helpers.errors import LabsError

HIDDEN_LABELS = frozenset({"engine", "model_name"})


def parse(text: str) -> dict[str, float]:
    """Every sample of a metrics page.

    A sample is found under its name, summed over all labels ('vllm:request_success_total'), and also under its name
    with the labels that tell samples of one server apart ('vllm:request_success_total{finished_reason="stop"}').
    Histogram buckets and creation times are left out.
    """
    from prometheus_client.parser import text_string_to_metric_families

    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith(("_bucket", "_created")):
                continue
            samples[sample.name] = samples.get(sample.name, 0.0) + sample.value
            labels = {k: v for k, v in sorted(sample.labels.items()) if k not in HIDDEN_LABELS}
            if labels:
                key = sample.name + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}"
                samples[key] = samples.get(key, 0.0) + sample.value
    return samples


async def scrape(base_url: str) -> Mapping[str, float]:
    """`GET base_url/metrics`, parsed.

    Raises:
        LabsError: no answer, or not a metrics page.
    """
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(base_url + "/metrics") as answer,
        ):
            answer.raise_for_status()
            return parse(await answer.text())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise LabsError(
            f"no metrics from {base_url}/metrics: {error or type(error).__name__}",
            "the engine may have died: look at its log (./labs engines logs NAME)",
        ) from error
