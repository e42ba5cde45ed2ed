"""The plugin as a program."""

from cni.skel import main
from cni_ipvlan import PLUGIN

if __name__ == "__main__":
    main(lambda: PLUGIN)
