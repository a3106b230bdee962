#!/bin/sh
# The generation half of DMTN-222's section 7 in its order, `bps` being `campaign` here.  It wants REPO,
# SCRATCH and CP_PIPE_DIR, `campaign` and `butler` on the PATH, and leaves pictures of detectors 5 and 8 in images/.
set -eu
. "$(dirname "$0")/exports.sh"
mkdir -p images

calib=${USER_CALIB_PREFIX}${INSTRUMENT}/calib/${TICKET}/${TAG}
templates=$CP_PIPE_DIR/bps/templates

# <dataset type> <collection> <where>
retrieve() {
    butler retrieve-artifacts "$REPO" images -d "$1" --collections "$2" --where "$3" --no-preserve-path --find-first
}

# <generation> <certified as> <dataset type> <chain mode>
certify() {
    butler certify-calibrations "$REPO" --begin-date "$START_DATE" "$calib/$1.$RERUN" "$calib/$2.$CERT_RERUN" "$3"
    butler collection-chain "$REPO" --mode "$4" "${USER_CALIB_PREFIX}$INSTRUMENT/calib/$TICKET" "$calib/$2.$CERT_RERUN"
}

some="instrument='${INSTRUMENT}' and detector in (5, 8)"
all="instrument='${INSTRUMENT}'"
bands=${BANDS:-u g r i z y}

campaign render "$templates/bps_biasBootstrap.yaml"
campaign submit "$templates/bps_biasBootstrap.yaml"
retrieve biasBootstrap "$calib/biasBootstrapGen.$RERUN/run$BOOTSTRAP_RUN_NUMBER" "$some"

campaign submit "$templates/bps_darkBootstrap.yaml"
retrieve darkBootstrap "$calib/darkBootstrapGen.$RERUN/run$BOOTSTRAP_RUN_NUMBER" "$some"

campaign submit "$templates/bps_flatBootstrap.yaml"

campaign submit "$templates/bps_defects.yaml"
certify defectGen defects defects redefine

campaign submit "$templates/bps_cti.yaml"
certify ctiGen cti cti prepend

campaign submit "$templates/bps_bias.yaml"
retrieve biasMosaic8 "$calib/biasGen.$RERUN" "$all"
certify biasGen bias bias prepend

campaign submit "$templates/bps_dark.yaml"
retrieve darkMosaic8 "$calib/darkGen.$RERUN" "$all"
certify darkGen dark dark prepend

for band in $bands; do
    campaign submit "$templates/bps_flat_$band.yaml"
done
for band in $bands; do
    retrieve flat "$calib/flatGen-$band.$RERUN" "$all"
done
for band in $bands; do
    certify "flatGen-$band" "flat-$band" flat prepend
done
