"""Whether every metric that the files ask for is among those that the tracker shows.

dashboard.py FILE... METRICS
"""

import re
import sys

*files, metrics = [open(name).read() for name in sys.argv[1:]]
shown = set(re.findall(r'^([a-z_]+)[{ ]', metrics, re.M))
asked = set(re.findall(r'\b((?:tbtt|process)_[a-z_]+)(?=[{\[ )])', '\n'.join(files)))
assert len(asked) > 15, f'only {asked} were found: are they still written so?'
# Without a state directory there is no snapshot; that it is shown is tested elsewhere.
missing = asked - shown - {'tbtt_snapshot_timestamp_seconds'}
# A tracker that shares with none has no such figures; tests/system/cluster asks one that does.
if not any(name.startswith('tbtt_cluster_') for name in shown):
    missing = {name for name in missing if not name.startswith('tbtt_cluster_')}
assert not missing, f'no metric is called {missing}'
