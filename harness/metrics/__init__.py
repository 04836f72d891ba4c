"""Quality metrics: one file, one entry a metric (`metric.Metric`), and the network whose features rFID and KID compare.

`registry` gathers the entries, those of other packages among them; `suite` runs them on batches. All read the same uint8
images, so no metric rounds or rescales for itself.
"""
