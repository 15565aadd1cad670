// Package conformance runs the mesh tests of the Gateway API against whatever cluster KUBECONFIG names.
//
// Invariant: without flags of its own choice every mesh feature of this version is claimed, so that no mesh test is skipped.
package conformance

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance"
	meshtests "sigs.k8s.io/gateway-api/conformance/tests/mesh"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// meshFeatures is what mesh tests ask for. Some belong to no mesh profile: without them seven tests would be skipped.
func meshFeatures() []features.FeatureName {
	core := sets.New(
		features.SupportMesh,
		features.SupportHTTPRoute,
		features.SupportGRPCRoute,
		features.SupportHTTPRouteResponseHeaderModification,
		features.SupportHTTPRouteParentRefPort,
		features.SupportHTTPRoute303RedirectStatusCode,
		features.SupportHTTPRoute307RedirectStatusCode,
		features.SupportHTTPRoute308RedirectStatusCode,
	)
	return core.Union(features.SetsToNamesSet(features.MeshExtendedFeatures)).UnsortedList()
}

// TestNames prints the names of the mesh tests of this version, so that whoever judges a run knows which must have passed.
func TestNames(*testing.T) {
	for _, test := range meshtests.MeshConformanceTests {
		fmt.Println("mesh-test", test.ShortName)
	}
}

func TestMesh(t *testing.T) {
	options := conformance.DefaultOptions(t) // parses the suite's flags and reads KUBECONFIG
	if len(options.SupportedFeatures) == 0 {
		options.SupportedFeatures = meshFeatures()
	}
	if len(options.ConformanceProfiles) == 0 {
		options.ConformanceProfiles = []suite.ConformanceProfileName{
			suite.MeshHTTPConformanceProfileName,
			suite.MeshGRPCConformanceProfileName,
		}
	}
	conformance.RunConformanceWithOptions(t, options)
}
