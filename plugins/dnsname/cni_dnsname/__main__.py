"""The plugin as a program."""

from cni.skel import main
from cni_dnsname import PLUGIN

if __name__ == "__main__":
    main(lambda: PLUGIN)
