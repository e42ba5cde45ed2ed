"""The plugin as a program."""

from cni.skel import main
from cni_macvlan import PLUGIN

if __name__ == "__main__":
    main(lambda: PLUGIN)
