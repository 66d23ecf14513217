"""Names of the standard library and of common packages, by the rule that they offend against."""

from __future__ import annotations


def _all(module: str, names: str) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for name in names.split())


CLOCKS = (
    _all("datetime.datetime", "now utcnow today")
    | _all("datetime.date", "today")
    | _all("arrow", "now utcnow")
    | _all("pendulum", "now today tomorrow yesterday")
    | _all("pandas.Timestamp", "now today utcnow")
)
# Right when called through their module, which the guards see; wrong by a name of one's own, which they do not.
GUARDED_CLOCKS = _all(
    "time",
    "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns localtime gmtime ctime asctime strftime",
)
GUARDED_CHANCE = _all(
    "random",
    "betavariate binomialvariate choice choices expovariate gammavariate gauss getrandbits lognormvariate "
    "normalvariate paretovariate randbytes randint random randrange sample shuffle triangular uniform "
    "vonmisesvariate weibullvariate",
) | _all("uuid", "uuid1 uuid4 uuid6 uuid7")
# Refused when they are called: better to know before.
CHANCE = (
    _all("random", "seed setstate SystemRandom")
    | _all("os", "urandom getrandom")
    | _all("secrets", "choice randbelow randbits token_bytes token_hex token_urlsafe SystemRandom")
    | _all("numpy.random", "default_rng rand randn randint random choice shuffle permutation normal uniform seed")
)
UNSEEDED = frozenset({"random.Random"})  # without an argument

ENVIRONMENT = (
    _all("os", "environ environb getenv getenvb getpid getppid getcwd cpu_count uname getlogin")
    | _all("platform", "node platform uname machine system release version processor")
    | _all("socket", "gethostname getfqdn")
    | _all("sys", "argv")
)

FILES = (
    _all("builtins", "open input")
    | _all("io", "open")
    | _all(
        "os",
        "open listdir scandir walk stat lstat remove unlink rename replace mkdir makedirs rmdir removedirs link "
        "symlink chmod chown utime truncate access",
    )
    | _all("os.path", "exists isfile isdir getsize getmtime getatime getctime")
    | _all("shutil", "copy copy2 copyfile copytree move rmtree disk_usage which make_archive unpack_archive")
    | _all("glob", "glob iglob")
    | _all(
        "tempfile",
        "mkstemp mkdtemp TemporaryFile NamedTemporaryFile SpooledTemporaryFile TemporaryDirectory gettempdir",
    )
    | _all("anyio", "open_file")
)
PATH_METHODS = frozenset(
    [
        "chmod",
        "exists",
        "glob",
        "is_dir",
        "is_file",
        "iterdir",
        "mkdir",
        "open",
        "read_bytes",
        "read_text",
        "rename",
        "replace",
        "rglob",
        "rmdir",
        "stat",
        "symlink_to",
        "touch",
        "unlink",
        "write_bytes",
        "write_text",
    ]
)
PATH_METHODS_OF_ANYTHING = frozenset({"read_text", "write_text", "read_bytes", "write_bytes"})

NETWORK = (
    _all("requests", "get post put patch delete head options request Session session")
    | _all("requests.api", "get post put patch delete head options request")
    | _all("httpx", "get post put patch delete head options request stream Client AsyncClient")
    | _all("urllib.request", "urlopen urlretrieve")
    | _all("urllib3", "request PoolManager HTTPConnectionPool")
    | _all("aiohttp", "request ClientSession")
    | _all("http.client", "HTTPConnection HTTPSConnection")
    | _all("smtplib", "SMTP SMTP_SSL")
    | _all(
        "socket",
        "socket socketpair create_connection create_server getaddrinfo gethostbyname gethostbyname_ex gethostbyaddr "
        "getnameinfo",
    )
    | _all("asyncio", "open_connection open_unix_connection start_server start_unix_server")
    | _all("anyio", "connect_tcp connect_unix create_tcp_listener create_unix_listener")
    | _all("sqlite3", "connect")
    | _all("psycopg", "connect")
    | _all("psycopg2", "connect")
    | _all("asyncpg", "connect create_pool")
    | _all("sqlalchemy", "create_engine")
)
PROCESSES = (
    _all("subprocess", "run Popen call check_call check_output getoutput getstatusoutput")
    | _all("os", "system popen fork forkpty posix_spawn posix_spawnp execv execve execvp kill")
    | _all("asyncio", "create_subprocess_exec create_subprocess_shell")
    | _all("anyio", "run_process open_process")
)
BLOCKING = frozenset({"time.sleep"})

THREADS = (
    _all("threading", "Thread Timer")
    | _all("_thread", "start_new_thread")
    | _all("concurrent.futures", "ThreadPoolExecutor ProcessPoolExecutor")
    | _all("concurrent.futures.thread", "ThreadPoolExecutor")
    | _all("concurrent.futures.process", "ProcessPoolExecutor")
    | _all("multiprocessing", "Process Pool")
    | _all("multiprocessing.context", "Process")
    | _all("asyncio", "to_thread run run_coroutine_threadsafe new_event_loop")
    | _all("anyio.to_thread", "run_sync")
    | _all("anyio", "run")
)
EXECUTOR_METHODS = frozenset({"run_in_executor"})

TASK_MAKERS = frozenset({"create_task", "ensure_future", "start_soon"})
GATHERERS = _all("asyncio", "gather wait as_completed") | _all("asyncio.tasks", "gather wait as_completed")
