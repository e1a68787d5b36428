"""What the cluster reports of tasks: caches of objects, and how they become observations."""
