"""Private clusters on this machine that stand in for a site's scheduler, for development and trials: Slurm's."""

from __future__ import annotations

from campaign.schedulers.protocol import Scheduler
from slurm.development import Cluster, ClusterError, down, living, up

__all__ = ["Cluster", "ClusterError", "down", "living", "on", "up"]


def on(scheduler: Scheduler, cluster: Cluster) -> Scheduler:
    """Point a scheduler that is not `placed` to a cluster; sizes of nodes in the site's file have priority."""
    size = {"node_cores": cluster.cpus, "node_memory_mib": cluster.memory_mib}
    unknown = {key: value for key, value in size.items() if getattr(scheduler, key) is None}
    return scheduler.model_copy(update={"conf": cluster.conf, **unknown})
