"""Checks that the tracker has every metric that the files use.

dashboard.py FILE... METRICS
"""

import re
import sys

*files, metrics = [open(name).read() for name in sys.argv[1:]]
available = set(re.findall(r'^([a-z_]+)[{ ]', metrics, re.M))
used = set(re.findall(r'\b((?:tbtt|process)_[a-z_]+)(?=[{\[ )])', '\n'.join(files)))
assert len(used) > 15, f'found only {used}; does the pattern still match the files?'
# Without a state directory there is no snapshot and no such metric; another test covers it.
missing = used - available - {'tbtt_snapshot_timestamp_seconds'}
# Only a tracker in a cluster has the cluster metrics; tests/system/cluster checks them.
if not any(name.startswith('tbtt_cluster_') for name in available):
    missing = {name for name in missing if not name.startswith('tbtt_cluster_')}
assert not missing, f'the tracker does not have these metrics: {missing}'
