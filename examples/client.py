from openline.client import Client, NotNow

with Client("127.0.0.1:50051,127.0.0.1:50052", "test-key") as client:
    try:
        print(client.execute("local", "get", "pods", timeout_s=10).check().text)
        for group in client.fan_out(["local", "east"], command="kubectl version").groups():
            print(group.cluster_ids, group.answer)
    except NotNow as later:  # ClusterOffline, ClusterBusy, …
        print(f"{later}: executed={later.executed}, ask again in {later.retry_after_s:g} s")
