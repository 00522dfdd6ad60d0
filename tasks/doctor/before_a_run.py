"""What a run must know before it starts anything: the same checks as those of `autosparse doctor`, and so the same lines."""

from autosparse.tasks.cluster.ray_address import check_ray
from autosparse.tasks.doctor import machine
from autosparse.tasks.doctor.finding import WARNING
from autosparse.tasks.server_addresses import check_mlflow_address
from autosparse.tasks.services.prefect_answer import check_prefect
from autosparse.tasks.settings import Settings

OF_A_LOCAL_RAY = (machine.cpus, machine.temporary)


def check_services(settings: Settings) -> list[str]:
    """Warnings for whoever starts a run. Raises ServiceError, SpecError or ConflictError, one line, for a server that a run would end with.

    A database of MLflow is looked at by the run itself, before Ray starts: that takes seconds in which Prefect's server starts.
    """
    check_mlflow_address(settings.mlflow_uri)
    if settings.mlflow_uri.startswith("http"):
        from autosparse.tasks.tracking.reachable import check_experiment  # MLflow takes a second to import

        check_experiment(settings.mlflow_uri)
    check_prefect(settings.prefect_api_url, ours=settings.prefect_api_url in settings.ours)
    check_ray(settings.ray_address, ours=settings.ray_address in settings.ours)
    found = [check(settings) for check in OF_A_LOCAL_RAY] if settings.ray_address is None else []
    return [one.said for one in found if one.state == WARNING]
