#!/bin/sh
# Pack dist/bundle for machines without Python and compiler: ./install in it does what `make install` does.
set -eu
cd "$(dirname "$0")/../dist"
version=$(cut -d- -f1 bundle/build)
name=pycni-$version-linux-$(uname -m)
mkdir -p "pack/$name"
cp ../build/bundle/install "pack/$name/install"
ln -sfn "$PWD/bundle" "pack/$name/bundle"
tar --create --gzip --dereference --owner=0 --group=0 --numeric-owner --sort=name \
    --directory pack --file "pack/$name.tar.gz" "$name"
mv "pack/$name.tar.gz" "$name.tar.gz"
rm -r pack
echo "dist/$name.tar.gz"
