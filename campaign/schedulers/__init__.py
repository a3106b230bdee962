"""Schedulers: settings of each kind, checked, and the backend that runs a site's jobs by them.

A kind of scheduler is one class, found through the entry-point group ``drp_campaign.schedulers``
(`campaign.schedulers.table`).  Nothing here knows of plans, tasks and journals.
"""

__all__ = ["development", "local", "protocol", "secure", "slurm", "table", "values"]
