"""The fake cloud of the node tests, which has run out of one type of machine."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

SOLD_OUT = "sold-out"
"""The type of node that never comes up."""


class StubbornProvider(FakeMultiNodeProvider):
    """Ray's provider of nodes that are processes; it fails to create those that are sold out."""

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: Any, labels: Any
    ) -> None:
        if tags[TAG_RAY_USER_NODE_TYPE] == SOLD_OUT:
            raise RuntimeError("no machine of this type is left in the zone")
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
