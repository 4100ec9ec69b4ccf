"""The gateway: fan-out of live aggregates to dashboards. Holds no truth; run it many times."""
