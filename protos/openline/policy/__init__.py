"""What may run in a cluster: the same decision for the gateway, which explains it, and the executor, which makes it.

`judge` reads arguments as kubectl would, holds them against the tables and a `Policy`, and writes them anew. Everything
here is pure. docs/policy.md is the model in words.
"""

from openline.policy.denial import Denied as Denied
from openline.policy.denial import Rule as Rule
from openline.policy.judge import Allowed as Allowed
from openline.policy.judge import Reading as Reading
from openline.policy.judge import judge as judge
from openline.policy.judge import read as read
from openline.policy.policy import Masking as Masking
from openline.policy.policy import Output as Output
from openline.policy.policy import Policy as Policy
from openline.policy.selection import Selection as Selection
