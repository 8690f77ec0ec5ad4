"""A small Kubernetes API server that the real kubectl accepts, and the cluster `local` behind it.

    from demo.kubernetes.server import serve

    async with serve(directory=Path("/tmp/somewhere")) as server:
        server.url               # https://127.0.0.1:<port>, with a certificate authority of its own
        server.kubeconfig        # reads everything but secrets, as the executor in a cluster would
        server.admin_kubeconfig  # may do everything that this server can: it reads secrets, too
        server.ca_file, server.token

`demo.kubernetes.app.create_app(world, tokens)` is the same as an ASGI application without a socket, for a world from
`demo.kubernetes.cluster.local(now)`. `python -m demo.kubernetes` runs it alone.

| namespace | what is there |
|---|---|
| `default`, `shop`, `monitoring`, `openline`, `kube-system` | workloads that are well |
| `payments` | `payments-api` crash-loops, because its ConfigMap gives the database the wrong port |
| `analytics` | `warehouse-loader` is pending: no node has that much cpu |
| `staging` | `storefront-preview` cannot pull its image: there is no such tag |
| `slow` | every answer takes 3 s |
| `stuck` | every answer takes a minute |
| `flood` | the log of pod `chatty` is some 300 MiB long |

Nothing can be written: the executor's token is forbidden to, and for the admin's the method is not allowed.
"""
