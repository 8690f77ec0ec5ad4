"""Sessions and clusters: unary calls, asked of one replica after the other until one answers.

None of them runs a command, and a session that was made twice expires unused; so each may be asked again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import grpc

from openline.errors import OpenlineError, error, from_rpc_error
from openline.pipes import Pipes
from openline.reasons import NO, Reason
from openline.v1 import cluster_service_pb2, session_service_pb2
from openline.v1.cluster_service_pb2 import Cluster
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.session_service_pb2 import Session
from openline.v1.session_service_pb2_grpc import SessionServiceStub
