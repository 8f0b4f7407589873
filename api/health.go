package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/swaggest/swgui/v5emb"
	"go.temporal.io/sdk/client"
)

// readyTimeout bounds what a probe waits for.
const readyTimeout = 2 * time.Second

func (a *api) registerHealth(engine *gin.Engine) {
	engine.GET("/livez", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"status": "alive"}) })
	engine.GET("/readyz", a.readyz)
	docs := withProblems(gin.WrapH(v5emb.New("Drayman", "/openapi.yaml", "/docs/")))
	engine.GET("/docs", func(c *gin.Context) {
		c.Request.URL.Path = "/docs/" // as the page's handler knows it
		docs(c)
	})
	engine.GET("/docs/*file", docs)
}

// withProblems gives a foreign handler's errors our form.
func withProblems(handle gin.HandlerFunc) gin.HandlerFunc {
	return func(c *gin.Context) {
		writer := c.Writer
		c.Writer = &problemWriter{ResponseWriter: writer, request: c.Request}
		defer func() { c.Writer = writer }()
		handle(c)
	}
}

type problemWriter struct {
	gin.ResponseWriter
	request *http.Request
	refused bool
}

func (w *problemWriter) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.refused = true
	newProblem(codeNotFound, nothingAt(w.request)).write(w.ResponseWriter)
}

func (w *problemWriter) Write(data []byte) (int, error) {
	if w.refused {
		return len(data), nil // its own words are not said
	}
	return w.ResponseWriter.Write(data)
}

// readyz says whether the process should get requests. That is up to the
// database: without Temporal, what was charged is still answered, customers
// still subscribe and cancel, and a new charge gets a 503 of its own.
func (a *api) readyz(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), readyTimeout)
	defer cancel()
	if err := a.ready(ctx); err != nil {
		a.log.WarnContext(ctx, "not ready", "error", err)
		newProblem(codeNotReady, "the database is out of reach, or its schema is not what this version needs; the log says more").write(c.Writer)
		return
	}
	temporal := "ok"
	if _, err := a.temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		temporal = "unavailable"
	}
	c.JSON(http.StatusOK, gin.H{"status": "ready", "database": "ok", "temporal": temporal})
}
